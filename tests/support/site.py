"""The whole application on an overview, served for browsers and for photographs; nothing behind it is real."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import uvicorn

from controlplane.web.app import build_app
from controlplane.web.page import Overview
from tests.support import consoles, incident_pages
from tests.support.doors import Doors
from tests.unit.web.test_api import Told, ports

START_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where it is served, and what was asked of it."""

    url: str
    asked: consoles.Asked
    doors: Doors


@contextmanager
def served(view: Overview, *, drill: bool = True) -> Iterator[Site]:
    """Serve an overview in a thread of its own.

    Args:
        view: what everything shows.
        drill: whether its drills and experiments can be asked for.
    """
    asked = consoles.Asked() if drill else consoles.Asked(refused="nothing is to be drilled")
    told = Told(pages=asked)

    async def overview() -> Overview:
        return view

    made = replace(
        ports(told), standing=lambda: view.standing, overview=overview, incident_pages=incident_pages.ports(view),
        console=consoles.ports(view, asked, told.doors.audit),
    )  # fmt: skip
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(build_app(made), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + START_WITHIN_S
        while not server.started:
            assert time.monotonic() < deadline, "the application was not served"
            time.sleep(0.01)
        try:
            yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", asked, told.doors)
        finally:
            made.changes.close()
            server.should_exit = True
            thread.join()
