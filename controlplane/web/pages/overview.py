"""The front page: the level, why and since when, what users get, what is left to fail, and what was done lately."""

from fastapi import FastAPI, Request

from controlplane.degradation.matrix import Level
from controlplane.web.frame import Sheet, add_page
from controlplane.web.page import Overview
from controlplane.web.pages.ports import ConsolePorts


def overview_sheet(view: Overview) -> Sheet:
    """Make the front page; ages are counted from `view.now`."""
    standing = view.standing
    level = standing.level if standing.level is not Level.NONE else "Normal"
    return Sheet("_main.html", f"{level} · {standing.service} · controlplane", view, standing.service, "/")


def add_overview(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the page."""

    async def make(_: Request) -> Sheet:
        return overview_sheet(await ports.overview())

    add_page(app, "/", make)
