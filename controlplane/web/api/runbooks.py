"""The API of the runbooks: the same pages as files. Called by `app`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse, PlainTextResponse

from controlplane.render.runbooks.subject import Subject
from controlplane.web.paging import After, Limit, page_of, sliced, spell_key
from controlplane.web.runbooks import RunbookPorts
from controlplane.web.shapes import pages


@dataclass(frozen=True, slots=True)
class RunbookEntry:
    """One page in a list."""

    name: str
    """As in its address."""
    title: str
    about: str
    levels: tuple[str, ...]
    """The rows it leads to."""
    signals: tuple[str, ...]
    alert: str
    """The alert it is about; empty for a page about a row, and for the index."""
    severity: str


class Markdown(PlainTextResponse):
    """A page as it stands in its file (RFC 7763)."""

    media_type = "text/markdown"


def add_runbook_texts(app: FastAPI, ports: RunbookPorts) -> None:
    """Add the routes."""

    @app.get("/api/v1/runbooks", tags=["runbooks"], responses=pages(RunbookEntry))
    async def runbooks(request: Request, limit: Limit = 500, after: After = "") -> JSONResponse:
        """List every runbook: the rows' first, then the index, then the alerts'."""
        found = sliced(entries(ports.subjects.values()), limit, after, _name)
        return page_of(request, found, limit, lambda entry: spell_key(entry.name))

    @app.get("/api/v1/runbooks/{name:path}", response_class=Markdown, tags=["runbooks"])
    async def markdown(name: Annotated[str, UrlPath(max_length=255)]) -> str:
        """Return a runbook as Markdown, with what people wrote on it."""
        text = await ports.text(name.removesuffix(".md"))
        if text is None:
            raise HTTPException(404, "there is no such runbook")
        return text


def entries(subjects: Iterable[Subject]) -> list[RunbookEntry]:
    """Return what the list of runbooks says of each."""
    return [
        RunbookEntry(one.name, one.title, one.about, one.levels, one.signals, one.alert, one.severity)
        for one in subjects
    ]


def _name(entry: RunbookEntry) -> str:
    return entry.name
