"""Holding one idle connection to an endpoint: the kernel tells us within milliseconds when its process dies.

An ended connection alone proves nothing (a server may close it); a reconnect that is refused proves that nothing
listens there any more. This is the only evidence that is acted on without any dwell.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from urllib.parse import urlsplit

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import Failure, Look

CONNECT_TIMEOUT_S = 1.0
RETRY_S = 0.1
"""How often a connection is tried while the endpoint is down; also the pause after one that was closed at once."""


async def hold(endpoint: Endpoint, report: Callable[[Look], None]) -> None:
    """Hold a connection to an endpoint for ever and report when it comes and goes; ends only by being cancelled."""
    while True:
        started = monotonic()
        try:
            address = urlsplit(endpoint.url)
            port = address.port or (443 if address.scheme == "https" else 80)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(address.hostname or "", port)
        except (OSError, TimeoutError, ValueError) as error:
            report(_look(endpoint, started, error))
            await asyncio.sleep(RETRY_S)
            continue
        report(_look(endpoint, started, None))
        try:
            await reader.read()
        except OSError:
            pass  # A reset ends the connection as an EOF does; the reconnect tells what it meant.
        finally:
            writer.close()
        if monotonic() - started < RETRY_S:
            await asyncio.sleep(RETRY_S)


def _look(endpoint: Endpoint, started: float, error: OSError | ValueError | None) -> Look:
    now = monotonic()
    if error is None:
        return Look(endpoint, "tcp", now, now - started)
    if isinstance(error, TimeoutError):
        return Look(endpoint, "tcp", now, now - started, Failure.TIMEOUT, f"no connection in {CONNECT_TIMEOUT_S} s")
    refused = isinstance(error, ConnectionRefusedError)
    return Look(endpoint, "tcp", now, now - started, Failure.REFUSED if refused else Failure.NETWORK, str(error))
