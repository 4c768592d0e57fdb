"""The API of the matrix: the level in force, every row with its phase, what people said. Called by `app`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from controlplane.degradation.instruction import Instruction
from controlplane.degradation.matrix import LEVELS, Level, Mode
from controlplane.flows.standing import RowStanding, Standing
from controlplane.web.answers import json_answer
from controlplane.web.api.ports import WebPorts
from controlplane.web.shapes import gives


@dataclass(frozen=True, slots=True)
class MatrixView:
    """The matrix as it stands."""

    service: str
    at: datetime
    level: Level
    level_since: datetime
    why: tuple[str, ...]
    levels: tuple[Level, ...]
    """From none to the worst."""
    mode: Mode
    rows: tuple[RowStanding, ...]
    not_armed: Mapping[str, str]
    pins: tuple[Instruction, ...]
    braked: bool
    brake: Instruction | None


def add_matrix(app: FastAPI, ports: WebPorts) -> None:
    """Add the route."""

    @app.get("/api/v1/matrix", tags=["degradation"], responses=gives(MatrixView))
    async def matrix() -> JSONResponse:
        """Say which level is in force and why, and how each row stands: trigger, phase, promise, what holds it back."""
        return json_answer(matrix_view(ports.standing()))


def matrix_view(standing: Standing) -> MatrixView:
    """Return the matrix alone."""
    return MatrixView(
        standing.service, standing.at, standing.level, standing.level_since, standing.why, LEVELS, standing.mode,
        standing.rows, standing.not_armed, standing.pins, standing.braked, standing.brake,
    )  # fmt: skip
