"""Telling people: Alertmanager, a webhook that takes JSON, and what understands Slack's messages. Begin and end.

Alertmanager gets an alert with the labels `alertname` (`ControlplaneDegradation`), `service`, `receiver`, `severity`
and `row`, which begins when the row engages and ends when it is over; a webhook gets `{"status": "firing" or
"resolved", "service", "receiver", "key", "text", "at"}`. A page is an alert of its own (`ControlplaneNeedsAPerson`), by
the label `page`: when it was sent. Every message carries an `idempotency-key`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import aiohttp

from controlplane.degradation.action import Errand, Notify
from controlplane.degradation.actuator import Preflight
from controlplane.degradation.actuators.post import Answer, encoded, send
from controlplane.degradation.errand import ReceiverSpec
from controlplane.errors import ActuatorError

ALERT = "ControlplaneDegradation"
PAGE = "ControlplaneNeedsAPerson"
"""The alert of what no row can mend, or no row may do by itself."""
PAGE_ENDS_AFTER = timedelta(hours=1)
ENDS_AFTER = timedelta(hours=24)
"""An alert that nobody ends ends by itself; Alertmanager's own 5 minutes are for those who send it again and again."""
FIRING, RESOLVED = "firing", "resolved"


class NotifyHand:
    """Tells the receivers on the page."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        service: str,
        receivers: Mapping[str, ReceiverSpec],
        secret: Callable[[str], str],
        now: Callable[[], datetime],
    ) -> None:
        """Take the receivers.

        Args:
            session: the HTTP connections to use.
            service: what people are told about.
            receivers: by name.
            secret: gives what is kept at `env:NAME` or `file:PATH`, and any other text as it is.
            now: the time, in UTC.
        """
        self._session = session
        self._service = service
        self._receivers = receivers
        self._secret = secret
        self._now = now

    async def preflight(self, errand: Errand) -> Preflight:
        """Ask whether the receiver is known and its secrets are there; nobody is told anything."""
        try:
            name, spec = self._receiver(errand)
            self._address(spec)
            self._headers(spec, "")
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        return Preflight(preview=f"{name} would be told ({spec.kind})")

    async def apply(self, errand: Errand, key: str) -> str:
        """Tell that it began.

        Raises:
            ActuatorError: when the receiver is unknown, or did not take it.
        """
        name, spec = self._receiver(errand)
        answer = await self._tell(name, spec, key, FIRING)
        return f"{name} ({spec.kind}) answered {answer.status}"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:  # noqa: ARG002
        """Tell that it is over.

        Raises:
            ActuatorError: when the receiver is unknown, or did not take it.
        """
        name, spec = self._receiver(errand)
        await self._tell(name, spec, key, RESOLVED)
        return f"told {name} that it is over"

    async def observe(self, errand: Errand, key: str, done: str) -> str:
        """Show the row's alert that is active at Alertmanager; the others show nothing, and have answered."""
        name, spec = self._receiver(errand)
        if spec.kind != "alertmanager":
            return done
        labels = self._labels(name, ALERT, row=self._row(key))
        query = [("active", "true"), *(("filter", f'{label}="{value}"') for label, value in labels.items())]
        try:
            async with self._session.get(
                self._address(spec),
                params=query,
                headers=self._headers(spec, ""),
                timeout=aiohttp.ClientTimeout(total=2.0),
            ) as response:
                found = [one for one in await response.json(content_type=None) if one["labels"] == labels]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError) as error:
            raise ActuatorError(
                f"cannot read the alerts of receiver {name}", f"{type(error).__name__}: {error}",
                "check that its `alertmanager` is an Alertmanager's base URL",
            ) from error  # fmt: skip
        return f"{ALERT} is {found[0]['status']['state']} at {name} since {found[0]['startsAt']}" if found else ""

    async def page(self, text: str) -> None:
        """Tell every receiver that a person is needed; one that does not take it does not keep it from the others.

        Raises:
            ActuatorError: of the last receiver that did not take it.
        """
        trouble: ActuatorError | None = None
        at = self._now().isoformat(timespec="microseconds")
        key = f"{self._service}/page/{at}"
        for name, spec in self._receivers.items():
            try:
                labels = self._labels(name, PAGE, page=at)
                message = self._message(name, spec, key, FIRING, f"{self._service}: {text}", labels, PAGE_ENDS_AFTER)
                headers = self._headers(spec, f"{key}/{name}")
                await send(
                    self._session, "POST", self._address(spec), encoded(message), headers, shown=f"receiver {name}"
                )
            except ActuatorError as error:
                trouble = error
        if trouble:
            raise trouble

    async def _tell(self, name: str, spec: ReceiverSpec, key: str, status: str) -> Answer:
        text = f"{self._service}: degradation {'is over' if status == RESOLVED else 'has begun'} ({key})"
        labels = self._labels(name, ALERT, row=self._row(key))
        url, message = self._address(spec), self._message(name, spec, key, status, text, labels)
        headers = self._headers(spec, f"{key}/{name}/{status}")
        return await send(self._session, "POST", url, encoded(message), headers, shown=f"receiver {name}")

    def _message(
        self,
        name: str,
        spec: ReceiverSpec,
        key: str,
        status: str,
        text: str,
        labels: dict[str, str],
        ends_after: timedelta = ENDS_AFTER,
    ) -> object:
        at, over = self._now(), status == RESOLVED
        if spec.slack:
            return {"text": f"{':white_check_mark:' if over else ':rotating_light:'} {text}"}
        if spec.webhook:
            return {
                "status": status, "service": self._service, "receiver": name, "key": key, "text": text,
                "at": at.isoformat(),
            }  # fmt: skip
        alert = {"labels": labels, "annotations": {"summary": text, "key": key}}
        if over:  # Alertmanager knows when it began.
            return [{**alert, "endsAt": at.isoformat()}]
        return [{**alert, "startsAt": at.isoformat(), "endsAt": (at + ends_after).isoformat()}]

    def _labels(self, name: str, alertname: str, **which: str) -> dict[str, str]:
        """Return what an alert is known by: two that differ in nothing are one, and end together."""
        return {"alertname": alertname, "service": self._service, "receiver": name, "severity": "critical", **which}

    def _row(self, key: str) -> str:
        """Return whose key it is: that of a step is `service/row/episode/step`."""
        return key.removeprefix(f"{self._service}/").partition("/")[0]

    def _receiver(self, errand: Errand) -> tuple[str, ReceiverSpec]:
        if not isinstance(errand, Notify):
            raise TypeError(f"not a notify errand: {errand}")
        if errand.receiver not in self._receivers:
            raise ActuatorError(
                f"no receiver {errand.receiver}", f"there are: {', '.join(sorted(self._receivers)) or 'none'}",
                "add it under `degradation.receivers`",
            )  # fmt: skip
        return errand.receiver, self._receivers[errand.receiver]

    def _address(self, spec: ReceiverSpec) -> str:
        address = self._secret(spec.alertmanager or spec.webhook or spec.slack).rstrip("/")
        return f"{address}/api/v2/alerts" if spec.alertmanager else address

    def _headers(self, spec: ReceiverSpec, key: str) -> dict[str, str]:
        token = self._secret(spec.token) if spec.token else ""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return headers | ({"idempotency-key": key} if key else {})
