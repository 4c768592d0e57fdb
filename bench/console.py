"""The console's pages of a fleet of 1,000 endpoints, drawn on the server: from the values to the bytes of the page.

The values are what a control plane has in memory; reading the books (a dozen rows each) is not part of it. The fragment
is what an open page fetches at each change. Over HTTP the guard is in front, and a client beside it.
"""

import statistics
import time
from collections.abc import Callable

from requests import Session

from bench.figures import Figure
from controlplane.web.frame import Frame
from controlplane.web.pages.fleet import fleet_sheet, fleet_view, read_asked
from controlplane.web.pages.overview import overview_sheet
from controlplane.web.pages.pools import pool_sheet, pool_view
from tests.support import consoles, incident_pages, overviews
from tests.support.doors import FILE_TOKEN
from tests.support.site import served

COMMAND = "make bench ONLY=console"
ENDPOINTS = 1000
RUNS = 300
GOAL_MS = 100.0
WHO = Frame("ann", "operator", "0" * 64, operates=True)


def run() -> list[Figure]:
    """Draw each page a few hundred times."""
    view = overviews.large(ENDPOINTS)
    standing, primary = view.standing, next(pool for pool in view.standing.pools if pool.name == "primary")
    thresholds, recorded = incident_pages.policy().thresholds, consoles.points(view)

    def fleet() -> str:
        made = fleet_view(standing, read_asked({}), view.now, view.version)
        return fleet_sheet(made).page(WHO, "/fleet/fragment")

    def pool() -> str:
        made = pool_view(standing, primary, "", thresholds, recorded, view.receipts, view.now, view.version)
        return pool_sheet(made).page(WHO, "/pools/primary/fragment")

    with served(view) as site, Session() as session:
        session.headers["authorization"] = f"Bearer {FILE_TOKEN}"
        answered = [
            *_figures("overview over HTTP", lambda: session.get(site.url).text, goal=True),
            *_figures("fleet over HTTP", lambda: session.get(f"{site.url}/fleet").text),
        ]
    return [
        *_figures("overview", lambda: overview_sheet(view).page(WHO, "/fragment"), goal=True),
        *_figures("overview's fragment", lambda: overview_sheet(view).fragment(WHO, "/fragment"), goal=True),
        *_figures("fleet", fleet),
        *_figures("pool, with charts of half an hour", pool),
        *answered,
    ]


def _figures(name: str, draw: Callable[[], str], *, goal: bool = False) -> list[Figure]:
    draw()
    took, size = [], 0
    for _ in range(RUNS):
        began = time.perf_counter()
        size = len(draw().encode())
        took.append((time.perf_counter() - began) * 1000)
    median, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
    told = f"< {GOAL_MS:g} ms" if goal else ""
    return [
        Figure(f"{name}: median", round(median, 2), "ms", RUNS, COMMAND, told,
               median < GOAL_MS if goal else None),
        Figure(f"{name}: p99", round(p99, 2), "ms", RUNS, COMMAND, told, p99 < GOAL_MS if goal else None),
        Figure(f"{name}: size", round(size / 1000, 1), "kB", 1, COMMAND),
    ]  # fmt: skip
