"""The API of the runbooks: the same pages as files. Called by `app`."""

from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse

from controlplane.web.runbooks import RunbookPorts


def add_runbook_texts(app: FastAPI, ports: RunbookPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/runbooks/{name:path}", response_class=PlainTextResponse, tags=["runbooks"])
    async def markdown(name: str) -> str:
        """Return a runbook as Markdown, with what people wrote on it."""
        text = await ports.text(name.removesuffix(".md"))
        if text is None:
            raise HTTPException(404, "there is no such runbook")
        return text
