"""A service of the operator's own as the lever: it is posted whole plans, signed, and asked what is in force.

`POST url` with the JSON of `payload`, and the headers

- `x-controlplane-timestamp`: Unix seconds of sending;
- `x-controlplane-signature`: `v1=` and the hex HMAC-SHA256 of `<timestamp>.<body>` under the shared secret;
- `idempotency-key`: the same for every try of one call; a later call, even of the same plan, has another.

A plan is the whole state, never a change: taking one twice is taking it once, and one with an older timestamp than the
newest taken is to be ignored. `GET url` (signed too, over an empty body) answers `{"weights": {...}, "level": "P0",
"shed": {"rate": 20, "burst": 30, "floor": 2} or null, "cordoned": [...], "pools": [...]}`: what is in force, and every
pool that the service knows.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from controlplane.degradation.action import Shed
from controlplane.degradation.actuator import Observed, Preflight, RoutePlan
from controlplane.degradation.actuators.post import encoded, send
from controlplane.degradation.actuators.sample import Sampler
from controlplane.errors import ActuatorError

TIMESTAMP_HEADER = "x-controlplane-timestamp"
SIGNATURE_HEADER = "x-controlplane-signature"
KEY_HEADER = "idempotency-key"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the signature of a body that was sent at a time."""
    signed = timestamp.encode() + b"." + body
    return f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def payload(service: str, plan: RoutePlan, key: str) -> dict[str, Any]:
    """Return a plan as JSON has it."""
    shed = plan.shed and {"rate": plan.shed.rate, "burst": plan.shed.burst, "floor": plan.shed.floor}
    return {
        "service": service,
        "key": key,
        "weights": {pool: weight for pool, weight in plan.weights.items() if weight},
        "level": plan.level.value,
        "shed": shed,
        "cordoned": list(plan.cordoned),
    }


class WebhookActuator:
    """The lever of one service behind one webhook."""

    def __init__(
        self, session: aiohttp.ClientSession, service: str, url: str, secret: Callable[[], str], sampler: Sampler
    ) -> None:
        """Take the lever.

        Args:
            session: the HTTP connections to use.
            service: whose traffic it is.
            url: where plans are posted and read back.
            secret: gives what signs.
            sampler: sends real requests to the service's listener.
        """
        self._session = session
        self._service = service
        self._url = url
        self._secret = secret
        self._sampler = sampler

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask what is in force and which pools there are; nothing is posted."""
        try:
            page = await self._read()
            live = _observed(page)
            pools = [str(pool) for pool in page["pools"]]
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            return Preflight(f"{self._url} answers what is no state: {error}")
        unknown = [pool for pool, weight in plan.weights.items() if weight and pool not in pools]
        if unknown:
            return Preflight(f"{self._url} knows no pool {', '.join(unknown)}")
        return Preflight(preview=f"weights {dict(live.weights)} -> {dict(plan.weights)}, level {plan.level}")

    async def apply(self, plan: RoutePlan, key: str) -> None:
        """Post the plan.

        Raises:
            ActuatorError: when it was refused, or not taken in time.
        """
        body = encoded(payload(self._service, plan, key))
        # Of this very call: steps back and forth under one receipt must not be taken for repetitions of each other.
        headers = {**self._signed(body), KEY_HEADER: f"{key}/{time.time_ns()}"}
        await send(self._session, "POST", self._url, body, headers)

    async def configured(self) -> Observed:
        """Ask what is in force.

        Raises:
            ActuatorError: when the service does not say.
        """
        page = await self._read()
        try:
            return _observed(page)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ActuatorError(
                f"{self._url} answers what is no state", f"{type(error).__name__}: {error}",
                "answer GET with weights, level, shed, cordoned and pools",
            ) from error  # fmt: skip

    async def sample(self, requests: int) -> Observed:
        """Ask what is in force, then send real requests to the listener."""
        return await self._sampler.sample(await self.configured(), requests)

    async def _read(self) -> Mapping[str, Any]:
        answer = await send(self._session, "GET", self._url, headers=self._signed(b""))
        try:
            page: Mapping[str, Any] = answer.json()
        except ValueError as error:
            raise ActuatorError(f"{self._url} answers no JSON", str(error), "answer GET with the state") from error
        return page

    def _signed(self, body: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature(self._secret(), timestamp, body)}


def _observed(page: Mapping[str, Any]) -> Observed:
    shed = page.get("shed")
    return Observed(
        {str(pool): int(weight) for pool, weight in page["weights"].items() if int(weight)},
        str(page["level"]),
        shed=shed and Shed(float(shed["rate"]), float(shed.get("burst") or 0), _floor(shed.get("floor"))),
        cordoned=tuple(sorted(str(name) for name in page.get("cordoned") or ())),
    )


def _floor(value: object) -> int | None:
    return None if value is None else int(str(value))
