"""JSON to somebody else's service: tried again with growing, random pauses while that may help, and never for long."""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import aiohttp

from controlplane.errors import ActuatorError

ONCE_S = 2.0
"""How long one try may take."""
ALL_S = 6.0
"""How long all tries together may take."""
MOST_TRIES = 5
FIRST_PAUSE_S = 0.1
"""The pause before the second try is drawn between 0 and this, and the bound doubles with each (full jitter)."""
LONGEST_PAUSE_S = 2.0
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said."""

    status: int
    text: str

    def json(self) -> Any:
        """Return the body, parsed; raises ValueError when it is no JSON."""
        return json.loads(self.text)


def encoded(payload: object) -> bytes:
    """Return JSON that is the same bytes for the same payload, so that it can be signed."""
    return json.dumps(payload, separators=(",", ":"), sort_keys=True).encode()


async def send(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    shown: str = "",
) -> Answer:
    """Send a request until it is answered for good.

    Args:
        session: the HTTP connections to use.
        method: GET, POST or PATCH.
        url: where to.
        body: JSON, or nothing.
        headers: besides the content type.
        shown: what to call the address in errors, where it is a secret itself.

    Raises:
        ActuatorError: when no try was answered, or the answer is a refusal.
    """
    name = shown or url
    deadline = monotonic() + ALL_S
    why = ""
    for tried in range(MOST_TRIES):
        if tried:
            pause = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tried - 1)))  # noqa: S311 - jitter
            if monotonic() + pause >= deadline:
                break
            await asyncio.sleep(pause)
        try:
            answer = await _once(session, method, url, body, headers or {}, deadline - monotonic())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The text of a client's error may hold the address; where that is a secret, its kind is all that is said.
            why = type(error).__name__ if shown else f"{type(error).__name__}: {error}"
            continue
        if answer.status < 300:
            return answer
        why = f"it answered {answer.status}: {answer.text[:300]}".strip()
        if answer.status not in TRY_AGAIN:
            raise ActuatorError(f"{name} refused", why, "see what its log says of this request")
    raise ActuatorError(f"{name} took nothing", why, "check the address, and that the service is up")


async def _once(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes, headers: Mapping[str, str], left_s: float
) -> Answer:
    timeout = aiohttp.ClientTimeout(total=max(min(ONCE_S, left_s), 0.05))
    kind = {"content-type": "application/json"} if body else {}
    async with session.request(
        method, url, data=body or None, headers={**kind, **headers}, timeout=timeout, allow_redirects=False
    ) as response:
        return Answer(response.status, await response.text(errors="replace"))
