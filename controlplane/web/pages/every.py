"""Every page of the console, added to the application; called by `web.app`."""

from fastapi import FastAPI

from controlplane.web.pages.drills import add_drill_pages
from controlplane.web.pages.fleet import add_fleet_page
from controlplane.web.pages.log import add_audit_page
from controlplane.web.pages.matrix import add_matrix_page
from controlplane.web.pages.overview import add_overview
from controlplane.web.pages.pools import add_pool_page
from controlplane.web.pages.ports import ConsolePorts


def add_console(app: FastAPI, ports: ConsolePorts) -> None:
    """Add them."""
    add_overview(app, ports)
    add_fleet_page(app, ports)
    add_pool_page(app, ports)
    add_matrix_page(app, ports)
    add_drill_pages(app, ports)
    add_audit_page(app, ports)
