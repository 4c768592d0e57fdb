"""What stands around every page of the console: who looks at it, what they may, where they are, and what was just done.

A `Sheet` is one page before it is drawn: `page` draws it whole, `fragment` only its `<main>`, which `console.js` puts
in the place of the one it shows. Called by `pages` and by whoever else sends HTML.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from controlplane.security.roles import Need, may
from controlplane.security.tokens import csrf_of
from controlplane.web.auth import Visitor
from controlplane.web.console import Clocked, draw

NAV = (
    ("/", "Overview"),
    ("/fleet", "Fleet"),
    ("/matrix", "Matrix"),
    ("/drills", "Drills"),
    ("/incidents", "Incidents"),
    ("/runbooks", "Runbooks"),
)
FOR_ADMINS = (("/audit", "Audit"),)

SAID: Mapping[str, str] = {
    "pin": "The row is pinned.",
    "unpin": "The pin is ended: the row follows its trigger again.",
    "approve": "Approved: the row may engage.",
    "refuse": "Refused: the row is left alone until its trigger has cleared.",
    "release": "The row's traffic is being given back.",
    "brake": "The brake is on: nothing engages or is given back by itself.",
    "unbrake": "The brake is off.",
    "halt": "Drills are halted, and every fault was told to end.",
    "resume": "Drills may start again.",
    "started": "The drill has begun.",
    "abort": "The drill was told to stop; its faults end first.",
    "acknowledge": "Acknowledged.",
    "assign": "Assigned.",
    "note": "The note is on the timeline.",
    "resolve": "Resolved.",
    "reopen": "Open again.",
}
"""What a page says after something was done, by the key in its address: a foreign address can bring none of its own."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Who looks at a page."""

    who: str = ""
    """Their name; empty for nobody we know."""
    role: str = ""
    csrf: str = ""
    """What forms send back; empty without a session, whose requests no other site can make a browser send."""
    operates: bool = False
    """Whether levers and drills are theirs to move."""
    admin: bool = False
    said: str = ""
    """What was just done, in words."""

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """The pages there are for them: (path, name)."""
        return (*NAV, *FOR_ADMINS) if self.admin else NAV


def frame_of(request: Request) -> Frame:
    """Return who looks at a page that `guard` has let through."""
    visitor: Visitor = request.state.visitor
    principal = visitor.principal
    if principal is None:
        return Frame()
    return Frame(
        principal.name,
        principal.role.value,
        csrf_of(visitor.cookie) if visitor.cookie else "",
        may(principal.role, Need.OPERATOR),
        may(principal.role, Need.ADMIN),
        SAID.get(request.query_params.get("said", ""), ""),
    )


@dataclass(frozen=True, slots=True)
class Sheet:
    """One page before it is drawn."""

    template: str
    """Of its `<main>`."""
    title: str
    view: Clocked
    """What it shows; templates know it as `view`."""
    service: str = ""
    active: str = ""
    """The page of the navigation that it belongs to."""
    moves: bool = True
    """Whether it is kept current while it is open."""
    values: Mapping[str, object] = field(default_factory=dict)
    """What else its template reads."""

    def page(self, frame: Frame, fragment: str = "") -> str:
        """Draw the whole page.

        Args:
            frame: who looks at it.
            fragment: the path that gives its `<main>` anew.
        """
        return draw("page.html", body=self.template, **self._values(frame, fragment))

    def fragment(self, frame: Frame, fragment: str) -> str:
        """Draw its `<main>`."""
        return draw(self.template, **self._values(frame, fragment))

    def _values(self, frame: Frame, fragment: str) -> dict[str, object]:
        return {
            "frame": frame, "view": self.view, "standing": getattr(self.view, "standing", None), "title": self.title,
            "service": self.service, "active": self.active, "fragment": fragment if self.moves else "", **self.values,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReportView:
    """A report as it is written to a file, of which the `<main>` is shown."""

    now: datetime
    version: str
    body: Markup


def report_sheet(html: str, title: str, now: datetime, version: str, service: str, active: str) -> Sheet:
    """Make the page of a report.

    Args:
        html: the report as a document of its own; our templates made it, and escaped what they were given.
        title: of the page.
        now: aware UTC.
        version: ours.
        service: whose it is.
        active: the page of the navigation that it belongs to.
    """
    body = html.partition('<main class="report">')[2].rpartition("</main>")[0]
    view = ReportView(now, version, Markup(body))  # noqa: S704 - see above
    return Sheet("_report.html", title, view, service, active, moves=False)


def fragment_path(request: Request) -> str:
    """Return the path that gives the `<main>` of a requested page anew, with what was asked of it."""
    path = request.url.path.removesuffix("/fragment").rstrip("/") + "/fragment"
    asked = "&".join(part for part in request.url.query.split("&") if part and not part.startswith("said="))
    return f"{path}?{asked}" if asked else path


def add_page(app: FastAPI, path: str, make: Callable[[Request], Awaitable[Sheet]]) -> None:
    """Add a page and its fragment.

    Args:
        app: what they are added to.
        path: of the page; the fragment is below it.
        make: gathers what is on it.
    """

    async def page(request: Request) -> HTMLResponse:
        sheet = await make(request)
        return HTMLResponse(sheet.page(frame_of(request), fragment_path(request)))

    async def fragment(request: Request) -> HTMLResponse:
        sheet = await make(request)
        return HTMLResponse(sheet.fragment(frame_of(request), fragment_path(request)))

    app.add_api_route(path.rstrip("/") + "/fragment", fragment, include_in_schema=False)
    app.add_api_route(path, page, include_in_schema=False)
