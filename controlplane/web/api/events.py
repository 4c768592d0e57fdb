"""`/events`: tells whoever listens that something changed. Called by `app`."""

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from controlplane.web.changes import Changes


def add_events(app: FastAPI, changes: Changes) -> None:
    """Add the route."""

    @app.get("/events", include_in_schema=False)
    async def events() -> StreamingResponse:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(changes.stream(), media_type="text/event-stream", headers=headers)
