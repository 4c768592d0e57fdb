"""What machines ask to know how the control plane itself fares: `/healthz`, `/readyz`, `/metrics`. Called by `app`."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder

from controlplane.web.api.ports import WebPorts


def add_health(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/healthz", response_class=PlainTextResponse, tags=["self"])
    async def healthz() -> str:
        """Say that the event loop turns."""
        return "ok\n"

    @app.get("/readyz", tags=["self"])
    async def readyz(request: Request) -> JSONResponse:
        """Say what is not ready yet and who is in charge (to a stranger only whether), and which role this one has."""
        missing, role = ports.not_ready(), ports.role()
        known = request.state.near or request.state.visitor.principal
        told = missing if known or not missing else ("something; a viewer's token shows what",)
        body = {
            "ready": not missing, "not_ready": told, "in_charge": ports.in_charge(), "role": role.name,
            "leader": role.leader if known else "",
        }  # fmt: skip
        return JSONResponse(body, 503 if missing else 200)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["self"])
    async def metrics(request: Request) -> Response:
        """Give the control plane's own metrics."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(ports.registry), media_type=content_type)
