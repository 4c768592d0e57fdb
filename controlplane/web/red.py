"""Counts what the application answers: rate, errors and duration by route (RED), and how many requests are under way.

An ASGI layer in front of the guard, so that refusals count. The label is the route's template, never the path that
was asked for: a stranger who tries paths must not fill a Prometheus. Webhooks come in by a door of their own, with
metrics of their own.
"""

from collections.abc import Callable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.telemetry import Requests

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
NO_ROUTE = "(no such path)"
STREAMS = ("/events",)
"""Routes whose answers do not end: the time to their beginning counts."""


class Counted:
    """Stands before everything else."""

    def __init__(self, app: ASGIApp, requests: Requests, clock_s: Callable[[], float] = perf_counter) -> None:
        self._app = app
        self._requests = requests
        self._clock_s = clock_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request when it has been answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, begun_to_answer = self._clock_s(), 500, None

        async def heard(message: Message) -> None:
            nonlocal status, begun_to_answer
            if message["type"] == "http.response.start":
                status, begun_to_answer = message["status"], self._clock_s()
            await send(message)

        self._requests.under_way += 1
        try:
            await self._app(scope, receive, heard)
        finally:
            self._requests.under_way -= 1
            route = scope.get("state", {}).get("route", NO_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else "other"
            ended = begun_to_answer if route in STREAMS and begun_to_answer is not None else self._clock_s()
            self._requests.answered(route, method, status, ended - began)
