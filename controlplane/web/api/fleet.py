"""The API of the fleet: how the service stands. Called by `app`."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from controlplane.web.answers import json_answer
from controlplane.web.api.ports import WebPorts


def add_fleet(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/standing", tags=["fleet"])
    async def standing() -> JSONResponse:
        """Say how the service stands: level, pools, verdicts with evidence, rows."""
        return json_answer(ports.standing())
