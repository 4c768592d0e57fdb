"""Alertmanager's v2 API: silences for the length of a fault, and what fires now. Every call has a deadline."""

import json
import re
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from controlplane.chaos.contract import Firing, Silence
from controlplane.errors import UnreachableError

TIMEOUT_S = 5.0
AUTHOR = "controlplane"
NAMELESS = "an alert without a name"
"""What an alert is called that carries no `alertname`: anybody may send one, and it hides none of the others."""


class _Listed(msgspec.Struct):
    """What is read of each of ten thousand alerts every other second."""

    labels: dict[str, str]
    startsAt: str  # noqa: N815 - its name on the wire


_LISTING = msgspec.json.Decoder(list[_Listed])


class _AbsentError(UnreachableError):
    """Alertmanager answers that it has no such thing."""


class Alertmanager:
    """One Alertmanager, or a cluster's any member."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def silence(self, silence: Silence) -> str:
        """Make or change a silence; return its id.

        Raises:
            UnreachableError: when it could not be made.
        """
        names = "|".join(re.escape(name) for name in silence.alerts)
        body = {
            "matchers": [
                {"name": "alertname", "value": f"^(?:{names})$", "isRegex": True, "isEqual": True},
                # One about the control plane itself carries no service; one of another service is not ours.
                {"name": "service", "value": f"^(?:{re.escape(silence.service)})?$", "isRegex": True, "isEqual": True},
            ],
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": silence.ends_at.astimezone(UTC).isoformat(),
            "createdBy": AUTHOR,
            "comment": silence.comment,
            **({"id": silence.id} if silence.id else {}),
        }
        return str((await self._call("POST", "/api/v2/silences", body))["silenceID"])

    async def lift(self, silence_id: str) -> None:
        """End a silence; one that has ended, or was forgotten by a restart, is success.

        Raises:
            UnreachableError: when nobody answers; it ends at its deadline all the same.
        """
        here = f"/api/v2/silence/{quote(silence_id, safe='')}"
        try:
            if (await self._call("GET", here))["status"]["state"] != "expired":
                await self._call("DELETE", here)
        except _AbsentError:
            return

    async def firing(self) -> tuple[Firing, ...]:
        """Return what fires now, silenced or not.

        Raises:
            UnreachableError: when nobody answers.
        """
        try:
            found = _LISTING.decode(await self.listing())
            return tuple(
                Firing(
                    a.labels.get("alertname") or NAMELESS,
                    datetime.fromisoformat(a.startsAt),
                    a.labels.get("service", ""),
                )
                for a in found
            )
        except (ValueError, RecursionError) as error:
            raise self._unreachable(f"it answers with no list of alerts: {error!r}") from error

    async def listing(self) -> bytes:
        """Return what fires now, silenced or not, as it is answered: JSON, not read yet.

        Raises:
            UnreachableError: when nobody answers.
        """
        return await self._ask("GET", "/api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true")

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = await self._ask(method, path, body)
        try:
            return json.loads(answer) if answer.strip() else None
        except ValueError as error:
            raise self._unreachable(f"{method} {path}: {error!r}") from error

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with self._session.request(method, self._url + path, json=body, timeout=timeout) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(f"{method} {path}: {error!r}") from error
        if answer.status >= 300:
            said = content[:200].decode(errors="replace")
            kind = _AbsentError if answer.status == HTTPStatus.NOT_FOUND else UnreachableError
            raise self._unreachable(f"{method} {path} gave status {answer.status}: {said}", kind)
        return content

    def _unreachable(self, why: str, kind: type[UnreachableError] = UnreachableError) -> UnreachableError:
        return kind(f"Alertmanager at {self._url} does not do as asked", why, "see `alertmanager:` of the page")
