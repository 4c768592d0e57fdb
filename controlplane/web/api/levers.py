"""The API of the lever: what is in force and why, and what people may say about it.

What each route needs stands in `access`. Called by `app`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi import Path as UrlPath
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from controlplane.degradation.instruction import Instruction, Kind, Refused
from controlplane.degradation.machine import TRANSITIONS
from controlplane.degradation.matrix import Level
from controlplane.errors import UsageError
from controlplane.flows.people import Said
from controlplane.policy import quantity
from controlplane.signals.recording import Point, spell_points
from controlplane.web.answers import json_answer, problem

_LEVEL = Annotated[str, UrlPath(pattern=r"^(none|P0|P1|P2)$")]
_ROW = Annotated[str, UrlPath(pattern=r"^P[0-2]$")]
TAGS: list[str | Enum] = ["degradation"]
LONGEST_PIN = timedelta(days=30)
"""A pin that nobody remembers is a matrix that does not work."""


@dataclass(frozen=True, slots=True)
class LeverPorts:
    """What the outside may ask of the lever."""

    instruct: Callable[[Said], Awaitable[Instruction | Refused]]
    end: Callable[[Kind, Level, str, str], Awaitable[Instruction | Refused]]
    """Ends a pin or the brake: (kind, level, who, why)."""
    instructions: Callable[[int], Awaitable[tuple[Instruction, ...]]]
    recording: Callable[[timedelta], tuple[Point, ...]]
    """The signals of the last so many minutes."""
    acting: Callable[[], bool] = lambda: True
    """Whether this replica follows what it is told; one that does not stores it for the one in charge."""


class Word(BaseModel):
    """Who says something, and why; both are kept."""

    model_config = ConfigDict(extra="forbid")
    why: str = Field(min_length=1, max_length=1000)
    who: str = Field(default="api", min_length=1, max_length=128)


class Pinning(Word):
    """The body of a request to pin a row."""

    lasts: str | None = Field(default=None, alias="for")


_Say = Callable[[Kind, str, Word, timedelta | None], Awaitable[JSONResponse]]
_End = Callable[[Kind, str, Word], Awaitable[JSONResponse]]


def add_lever_routes(app: FastAPI, ports: LeverPorts) -> None:
    """Add the routes."""

    async def say(kind: Kind, level: str, word: Word, lasts: timedelta | None) -> JSONResponse:
        said = await ports.instruct(Said(kind, Level(level), word.who, word.why, lasts))
        if isinstance(said, Refused):
            return problem(409, f"the instruction to {kind} {level} cannot be followed", said.why)
        return json_answer(said, 201 if ports.acting() else 202)

    async def end(kind: Kind, level: str, word: Word) -> JSONResponse:
        ended = await ports.end(kind, Level(level), word.who, word.why)
        if isinstance(ended, Refused):
            return problem(409, "there is nothing to end", ended.why)
        return json_answer(ended)

    _reading(app, ports)
    _pins(app, say, end)
    _rows(app, say)


def _lasts(text: str | None) -> timedelta | None:
    """Read how long a pin lasts.

    Raises:
        UsageError: when it is no duration, or not a sensible one.
    """
    if text is None:
        return None
    try:
        lasts = quantity.duration(text)
    except ValueError as error:
        raise UsageError(f"`{text}` is no duration", f"expected {error}", "write one such as 30m") from error
    if not timedelta(0) < lasts <= LONGEST_PIN:
        raise UsageError(f"nothing lasts {text} here", "from a moment to 30 days", "write one such as 30m")
    return lasts


def _reading(app: FastAPI, ports: LeverPorts) -> None:
    @app.get("/api/v1/instructions", tags=TAGS)
    async def instructions(limit: int = 50) -> JSONResponse:
        """List what people have told the matrix, the newest first."""
        return json_answer(await ports.instructions(max(1, min(limit, 500))))

    @app.get("/api/v1/recording", tags=TAGS)
    async def recording(lasts: Annotated[str, Query(alias="for")] = "10m") -> PlainTextResponse:
        """Give the signals of the last minutes as JSON lines, for `controlplane simulate`."""
        points = ports.recording(_lasts(lasts) or timedelta())
        return PlainTextResponse("".join(spell_points(points)), media_type="application/x-ndjson")

    @app.get("/api/v1/machine", tags=TAGS)
    async def machine() -> JSONResponse:
        """Give the transitions of a row: the table the machine runs by."""
        table = [
            {"from": phase, "cue": cue, "to": to.to, "effects": to.effects} for (phase, cue), to in TRANSITIONS.items()
        ]
        return json_answer(table)


def _pins(app: FastAPI, say: _Say, end: _End) -> None:
    @app.post("/api/v1/pins/{level}", tags=TAGS, status_code=201)
    async def pin(level: _LEVEL, body: Pinning) -> JSONResponse:
        """Put a row in force and keep it there; `none` lets no row begin anything. 409 says why not."""
        return await say(Kind.PIN, level, body, _lasts(body.lasts))

    @app.post("/api/v1/pins/{level}/end", tags=TAGS)
    async def unpin(level: _LEVEL, body: Word) -> JSONResponse:
        """End a pin: the row follows its trigger again."""
        return await end(Kind.PIN, level, body)

    @app.post("/api/v1/brake", tags=TAGS, status_code=201)
    async def brake(body: Word) -> JSONResponse:
        """Pull the brake: nothing engages or is given back by itself."""
        return await say(Kind.BRAKE, Level.NONE, body, None)

    @app.post("/api/v1/brake/release", tags=TAGS)
    async def let_go(body: Word) -> JSONResponse:
        """Let go of the brake."""
        return await end(Kind.BRAKE, Level.NONE, body)


def _rows(app: FastAPI, say: _Say) -> None:
    @app.post("/api/v1/rows/{level}/approve", tags=TAGS, status_code=201)
    async def approve(level: _ROW, body: Word) -> JSONResponse:
        """Let a row engage that waits for approval."""
        return await say(Kind.APPROVE, level, body, None)

    @app.post("/api/v1/rows/{level}/refuse", tags=TAGS, status_code=201)
    async def refuse(level: _ROW, body: Word) -> JSONResponse:
        """Have a row left alone until its trigger has cleared."""
        return await say(Kind.REFUSE, level, body, None)

    @app.post("/api/v1/rows/{level}/release", tags=TAGS, status_code=201)
    async def release(level: _ROW, body: Word) -> JSONResponse:
        """Begin to give a row's traffic back now, by its steps."""
        return await say(Kind.RELEASE, level, body, None)
