"""The API of the experiments: what can be run as a drill, and what is wrong with those that cannot. Called by `app`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse

from controlplane.chaos.experiment import ExperimentFile
from controlplane.chaos.redundancy import Preview, spell_preview
from controlplane.chaos.safety import Go, Refusal
from controlplane.web.answers import json_answer
from controlplane.web.api.ports import WebPorts
from controlplane.web.paging import After, Limit, page_of, sliced, spell_key
from controlplane.web.shapes import gives, pages

EXPERIMENT_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"


@dataclass(frozen=True, slots=True)
class PreviewView:
    """What a drill would do."""

    preview: Preview
    words: tuple[str, ...]
    refused: tuple[str, ...]
    """Why it may not start now; empty when it may."""
    gates: tuple[str, ...]
    """What each open gate has seen."""


def add_experiments(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""
    name_path = UrlPath(pattern=EXPERIMENT_NAME)

    @app.get("/api/v1/experiments", tags=["drills"], responses=pages(ExperimentFile))
    async def experiments(request: Request, limit: Limit = 100, after: After = "") -> JSONResponse:
        """List the experiments by name, each with what it breaks, or with what is wrong with its file."""
        found = await ports.experiments()
        return page_of(request, sliced(found, limit, after, _name), limit, lambda one: spell_key(one.name))

    @app.get("/api/v1/experiments/{experiment}", tags=["drills"], responses=gives(ExperimentFile))
    async def one(experiment: Annotated[str, name_path]) -> JSONResponse:
        """Return one experiment."""
        found = next((file for file in await ports.experiments() if file.name == experiment), None)
        if found is None:
            raise HTTPException(404, f"no experiment {experiment}")
        return json_answer(found)

    @app.get("/api/v1/experiments/{experiment}/preview", tags=["drills"], responses=gives(PreviewView))
    async def preview(experiment: Annotated[str, name_path]) -> JSONResponse:
        """Say what a drill would break, what survives, at what load, and whether the gates are open."""
        found, asked = await ports.desk.preview(experiment)
        reasons = asked.reasons if isinstance(asked, Refusal) else ()
        seen = asked.seen if isinstance(asked, Go) else ()
        return json_answer(PreviewView(found, tuple(spell_preview(found)), reasons, seen))


def _name(file: ExperimentFile) -> str:
    return file.name
