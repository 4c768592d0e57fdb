"""What the pages' forms have in common: reading them, who sent them, the page that asks before anything moves.

`guard` has looked at each before: that it is of this session's pages, that its sender may, and that it is recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from controlplane.web.auth import Visitor
from controlplane.web.frame import Sheet, frame_of

LONGEST_WHY = 500


@dataclass(frozen=True, slots=True)
class Question:
    """A page that says what would happen, and asks why before it does."""

    now: datetime
    version: str
    heading: str
    action: str
    """Where its form is sent; a path of ours."""
    button: str
    back: str
    """Where somebody goes who thinks better of it."""
    facts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """What would happen: (what, lines)."""
    notices: tuple[str, ...] = ()
    """Why it would be refused now."""
    may: bool = True
    """Whether it can be asked for at all now."""
    asks_why: bool = True
    asks_how_long: bool = False
    dangerous: bool = True
    why: str = ""
    """What was written already."""
    lasts: str = ""
    wrong: str = ""
    """What is wrong with what was written, or why it was refused."""


def question_sheet(question: Question, service: str, active: str) -> Sheet:
    """Make the page."""
    title = f"{question.heading} · {service} · controlplane"
    return Sheet("_question.html", title, question, service, active, moves=False)


def ask(request: Request, question: Question, service: str, active: str, status: int = 200) -> HTMLResponse:
    """Answer with the question's page."""
    return HTMLResponse(question_sheet(question, service, active).page(frame_of(request)), status)


async def fields_of(request: Request) -> Mapping[str, str]:
    """Read a form; of a field that comes twice the first counts."""
    body = (await request.body()).decode("utf-8", "replace")
    return {name: values[0].strip() for name, values in parse_qs(body).items()}


def person(request: Request) -> str:
    """Return the name of whoever sent a form."""
    visitor: Visitor = request.state.visitor
    return visitor.principal.name if visitor.principal else "nobody"


def wrong_why(why: str) -> str:
    """Say what is wrong with a reason, or nothing."""
    if not why:
        return "Say why: it is kept beside what you do."
    return f"A reason has at most {LONGEST_WHY} characters." if len(why) > LONGEST_WHY else ""


def done(path: str, said: str) -> RedirectResponse:
    """Answer a form that was followed: on to a page of ours, which says so."""
    return RedirectResponse(f"{path}?said={said}", 303)
