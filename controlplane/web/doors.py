"""The pages of the way in; `sessions` and `oidc` send them."""

from dataclasses import dataclass
from datetime import datetime

import controlplane
from controlplane.clock import utcnow
from controlplane.web.console import draw
from controlplane.web.frame import Frame, Sheet


@dataclass(frozen=True, slots=True)
class LoginView:
    """The login page."""

    now: datetime
    version: str
    onward: str
    said: str
    provider: str


def login_html(onward: str, said: str, provider: str) -> str:
    """Draw the login page.

    Args:
        onward: the path of ours that comes after it.
        said: what was wrong with the last attempt; empty before the first.
        provider: the name of the identity provider; empty without one.
    """
    view = LoginView(utcnow(), controlplane.__version__, onward, said, provider)
    return Sheet("_login.html", "Log in · controlplane", view, moves=False).page(Frame())


def onward_html(onward: str) -> str:
    """Draw the page after a login elsewhere: it goes on by itself, now as a page of ours."""
    return draw("onward.html", onward=onward)
