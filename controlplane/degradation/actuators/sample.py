"""Real requests through a gateway: who answered, and at which level. Every actuator proves itself with these.

They ask what the probes ask. A cache that stands in for an overloaded pool turns away what it does not know; the
probes' question it knows as long as it is well, so that its proof does not wait for the overload to end.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import aiohttp

from controlplane.degradation.actuator import Observed
from controlplane.degradation.actuators.headers import (
    GATEWAY,
    LEVEL_HEADER,
    PRIORITY_HEADER,
    SERVED_BY_HEADER,
    UNNAMED,
)
from controlplane.probes.probe import InferenceSpec

_SAMPLE_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


class Sampler:
    """Sends short completions where users' requests enter."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        listener_url: str,
        model: str,
        asked: InferenceSpec | None = None,
        headers: Mapping[str, str] | None = None,
        served_by: str = SERVED_BY_HEADER,
    ) -> None:
        """Take the gateway's address.

        Args:
            session: the HTTP connections to use.
            listener_url: where users' requests enter.
            model: the model to ask for; empty asks for the default one.
            asked: the completion to ask for; the probes' default by default.
            headers: sent with every request, such as an authorization.
            served_by: the response header that names who answered.
        """
        self._session = session
        self._url = f"{listener_url}/v1/completions"
        asked = asked or InferenceSpec()
        self._body = {"prompt": asked.prompt, "max_tokens": asked.max_tokens, "temperature": 0}
        self._body |= {"model": model} if model else {}
        # The most important priority there is: a floor does not refuse the proof that it stands.
        self._headers = {PRIORITY_HEADER: "0", **(headers or {})}
        self._served_by = served_by

    async def sample(self, live: Observed, requests: int) -> Observed:
        """Send that many requests at once; return what is configured with who answered them."""
        answers = await asyncio.gather(*(self._ask() for _ in range(requests)))
        return replace(
            live,
            answered_by=tuple(by for by, _ in answers),
            answered_level=tuple(level for _, level in answers),
        )

    async def _ask(self) -> tuple[str, str]:
        """Send one completion; no answer gives empty texts.

        A refusal that the gateway signs (429, served by itself) is its answer: that is what shedding looks like.
        """
        try:
            async with self._session.post(
                self._url, json=self._body, headers=self._headers, timeout=_SAMPLE_TIMEOUT
            ) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "", ""
        by, level = response.headers.get(self._served_by, ""), response.headers.get(LEVEL_HEADER, "")
        if response.status == 200:
            return by or UNNAMED, level
        return (by, level) if response.status == 429 and by == GATEWAY else ("", "")
