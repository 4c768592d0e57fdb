"""The alerts that fire now: as Alertmanager tells when it is asked, and as webhooks told us; the matrix asks by name.

What Alertmanager lists is the truth about its own alerts, and newer than any webhook but those that came since it was
asked. While it does not answer, what we were told and have not heard the end of still fires, and of everything else
nobody knows: that is `unknown`, never no. Without one on the page what was told is all there is.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic

import structlog

from controlplane.chaos.contract import Firing
from controlplane.degradation.matrix import Alerts, AtLeast
from controlplane.errors import UnreachableError
from controlplane.incidents.alert import Source, Status
from controlplane.incidents.firing import Change, Kind, Tally

ONLY_HEARD = tuple(source for source in Source if source is not Source.ALERTMANAGER)
"""Who cannot be asked."""

log = structlog.get_logger("alerts")


class FiringAlerts:
    """What fires for one service, silenced or not: whoever silences an alert still wants the service to be served."""

    def __init__(
        self,
        firing: Callable[[], Awaitable[tuple[Firing, ...]]] | None,
        service: str,
        waited_for: frozenset[str] = frozenset(),
        wake: Callable[[], None] = lambda: None,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """Take who is asked, and whom to wake.

        Args:
            firing: asks Alertmanager; None without one on the page.
            service: whose alerts count, beside those of no service.
            waited_for: names that rows of the matrix wait for.
            wake: called when one of these began or ceased to fire.
            answered: told whenever the Alertmanager has answered.
        """
        self._firing = firing
        self._service = service
        self._waited_for = waited_for
        self._wake = wake
        self._answered = answered
        self._tally = Tally()
        self._asked = False
        self._listed: frozenset[str] | None = None
        self._since: dict[str, float] = {}
        """Names that webhooks told of, with monotonic seconds, since Alertmanager was asked."""
        self.names: Alerts = None if firing else frozenset()
        """The names of the alerts that fire; None while that is unknown."""

    async def ask(self) -> None:
        """Ask anew; called every few seconds."""
        if self._firing is None:
            return
        began = monotonic()
        try:
            firing = await self._firing()
        except UnreachableError as error:
            if self._listed is not None or not self._asked:
                log.warning("alerts unknown", what=error.what, why=error.why, fix=error.fix)
            self._listed = None
        else:
            self._listed = frozenset(alert.name for alert in firing if alert.service in ("", self._service))
            self._answered()
        self._since = {name: at for name, at in self._since.items() if at >= began}
        self._asked = True
        self._settle()

    def heard(self, changes: Sequence[Change]) -> None:
        """Take in what webhooks told."""
        moved, now = self._tally.take(changes), monotonic()
        for change in changes:
            if self._firing and change.status is Status.FIRING and change.service in ("", self._service):
                moved = moved or change.name not in self._since
                self._since[change.name] = now
        if moved:
            self._settle()

    def counted(self, counts: Mapping[Kind, int]) -> None:
        """Take over how many fire by the books, to which another control plane may have added what it was told."""
        before = self._tally.names(self._service)
        self._tally.reset(counts)
        if self._firing:
            now = monotonic()
            self._since.update((name, now) for name in self._tally.names(self._service) - before)
        self._settle()

    def _settle(self) -> None:
        before, self.names = self.names, self._now()
        if _of(before, self._waited_for) != _of(self.names, self._waited_for):
            self._wake()

    def _now(self) -> Alerts:
        if self._firing is None:
            return self._tally.names(self._service)
        if self._listed is not None:
            return self._listed.union(self._since, self._tally.names(self._service, ONLY_HEARD))
        told = self._tally.names(self._service) if self._asked else frozenset()
        return AtLeast(told) if told else None


def _of(alerts: Alerts, names: frozenset[str]) -> tuple[bool, frozenset[str]]:
    """Return what matters of alerts: whether all are known, and which of some names fire."""
    known = alerts is not None and not isinstance(alerts, AtLeast)
    return known, names & (alerts or frozenset())
