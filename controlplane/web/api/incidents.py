"""The API of the incidents, in a list. Called by `app`."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from controlplane.web.answers import bounded, json_answer
from controlplane.web.api.ports import WebPorts


def add_incidents(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/incidents", tags=["incidents"])
    async def incidents(limit: int = 50) -> JSONResponse:
        """List the newest incidents first, each with its timeline."""
        return json_answer(await ports.incidents(bounded(limit)))
