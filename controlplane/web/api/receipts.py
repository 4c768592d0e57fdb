"""The API of the receipts: what was done, by which lever, and how it ended. Called by `app`."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from controlplane.web.answers import bounded, json_answer
from controlplane.web.api.ports import WebPorts


def add_receipts(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/receipts", tags=["degradation"])
    async def receipts(limit: int = 50) -> JSONResponse:
        """List the newest actions first."""
        return json_answer(await ports.receipts(bounded(limit)))
