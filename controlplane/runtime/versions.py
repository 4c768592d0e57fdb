"""Which version each endpoint runs, asked when it has come (back): a version only changes over a restart.

Only a hint on an incident needs it, so it is asked seldom, a few endpoints at a time, and an engine that does not tell
(`/version` is vLLM's, SGLang has `/get_server_info`) simply has none.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import timedelta
from time import monotonic

from controlplane.fleet.model import GATEWAY_POOL, Endpoint
from controlplane.incidents.clues import ClueBook
from controlplane.probes.probe import HELD, Fetch, Look

PATHS = ("/version", "/get_server_info")
MODELS_PATH = "/v1/models"
ASK_AT_MOST_EVERY_S = 60.0
"""A held connection also comes back after an idle time-out of the server: that is no restart."""
AT_ONCE = 16
WITHIN = timedelta(seconds=2)


class Versions:
    """Asks endpoints for their version and tells the clues."""

    def __init__(self, fetch: Fetch, clues: ClueBook, spawn: Callable[[Coroutine[None, None, None]], object]) -> None:
        """Take what it works with.

        Args:
            fetch: gets pages.
            clues: what is told.
            spawn: starts a task in the process's own group.
        """
        self._fetch = fetch
        self._clues = clues
        self._spawn = spawn
        self._asked: dict[str, float] = {}
        self._models: dict[str, frozenset[str]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)

    def noticed(self, look: Look) -> None:
        """Ask an endpoint whose connection has just come to stand."""
        if look.probe != HELD or not look.ok or look.endpoint.pool == GATEWAY_POOL:
            return
        now = monotonic()
        if now - self._asked.get(look.endpoint.name, float("-inf")) >= ASK_AT_MOST_EVERY_S:
            self._asked[look.endpoint.name] = now
            self._spawn(self._ask(look.endpoint))

    def models(self, endpoint: Endpoint) -> frozenset[str]:
        """Return what an endpoint said it serves when it last came up; empty when it did not say."""
        return self._models.get(endpoint.name, frozenset())

    async def _ask(self, endpoint: Endpoint) -> None:
        async with self._at_once:
            self._models[endpoint.name] = read_models((await self._fetch(endpoint.url + MODELS_PATH, WITHIN)).content)
            for path in PATHS:
                got = await self._fetch(endpoint.url + path, WITHIN)
                version = read_version(got.content or b"")
                if version:
                    self._clues.version(endpoint.name, version, monotonic())
                    return


def read_version(content: bytes) -> str:
    """Return the version that an answer tells, or an empty string."""
    try:
        told = json.loads(content).get("version", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return told[:64] if isinstance(told, str) else ""


def read_models(content: bytes | None) -> frozenset[str]:
    """Return the models that an answer lists: `root` is a model's own name where its `id` is an alias."""
    try:
        listed = json.loads(content or b"{}").get("data", [])
        return frozenset(str(model.get("root") or model["id"])[:255] for model in listed)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return frozenset()
