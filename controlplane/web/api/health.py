"""What machines ask to know how the control plane itself fares: `/healthz`, `/readyz`, `/metrics`. Called by `app`."""

from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder

from controlplane.web.answers import json_answer
from controlplane.web.api.ports import WebPorts
from controlplane.web.shapes import gives


@dataclass(frozen=True, slots=True)
class Ready:
    """Whether every part is ready."""

    ready: bool
    not_ready: tuple[str, ...]
    """What is missing, in words."""
    in_charge: bool
    """Whether this control plane moves levers, or another one on the same database does."""
    role: str
    """`leader`, `follower` or `taking over`."""
    leader: str
    """Who is in charge; strangers are not told."""


def add_health(app: FastAPI, ports: WebPorts) -> None:
    """Add the routes."""

    @app.get("/healthz", response_class=PlainTextResponse, tags=["self"])
    async def healthz() -> str:
        """Say that the event loop turns."""
        return "ok\n"

    @app.get("/readyz", tags=["self"], responses=gives(Ready) | gives(Ready, 503, "Not ready."))
    async def readyz(request: Request) -> JSONResponse:
        """Say what is not ready yet and who is in charge (to a stranger only whether), and which role this one has."""
        missing, role = ports.not_ready(), ports.role()
        known = request.state.near or request.state.visitor.principal
        told = missing if known or not missing else ("something; a viewer's token shows what",)
        leader = role.leader if known else ""
        return json_answer(Ready(not missing, told, ports.in_charge(), role.name, leader), 503 if missing else 200)

    @app.get("/metrics", response_class=PlainTextResponse, tags=["self"])
    async def metrics(request: Request) -> Response:
        """Give the control plane's own metrics."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(ports.registry), media_type=content_type)
