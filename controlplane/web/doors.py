"""The pages about who may come in and what they did; `sessions` and `admin` send them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.security.chain import Link
from controlplane.web.console import draw


@dataclass(frozen=True, slots=True)
class _View:
    """The clock of a page that shows nothing of the service."""

    now: datetime


def login_html(onward: str, said: str, provider: str) -> str:
    """Draw the login page.

    Args:
        onward: the path of ours that comes after it.
        said: what was wrong with the last attempt; empty before the first.
        provider: the name of the identity provider; empty without one.
    """
    return draw("login.html", onward=onward, said=said, provider=provider)


def onward_html(onward: str) -> str:
    """Draw the page after a login elsewhere: it goes on by itself, now as a page of ours."""
    return draw("onward.html", onward=onward)


def audit_html(links: Sequence[Link], shown: int, now: datetime) -> str:
    """Draw a page of the audit log.

    Args:
        links: rows, the newest first.
        shown: how many a page has; one with as many has older ones behind it.
        now: aware UTC.
    """
    return draw("audit.html", links=links, shown=shown, view=_View(now))
