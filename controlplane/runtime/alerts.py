"""The alerts that fire now, as an Alertmanager tells them; the matrix asks for them by name.

While it does not answer nobody knows what fires: that is `unknown`, never no. Without one on the page nobody reports
alerts, and a row that would wait for one goes by its other conditions.
"""

from collections.abc import Awaitable, Callable

import structlog

from controlplane.chaos.contract import Firing
from controlplane.degradation.matrix import Alerts
from controlplane.errors import UnreachableError

log = structlog.get_logger("alerts")


class FiringAlerts:
    """What fires for one service, silenced or not: whoever silences an alert still wants the service to be served."""

    def __init__(
        self,
        firing: Callable[[], Awaitable[tuple[Firing, ...]]] | None,
        service: str,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with nothing known.

        Args:
            firing: asks the Alertmanager; None without one.
            service: whose alerts count.
            answered: told whenever the Alertmanager has answered.
        """
        self._firing = firing
        self._service = service
        self._answered = answered
        self.names: Alerts = None if firing else frozenset()
        """The names of the alerts that fire; None while that is unknown."""

    async def ask(self) -> None:
        """Ask anew; called every few seconds."""
        if self._firing is None:
            return
        try:
            firing = await self._firing()
        except UnreachableError as error:
            if self.names is not None:
                log.warning("alerts unknown", what=error.what, why=error.why, fix=error.fix)
            self.names = None
        else:
            self.names = frozenset(alert.name for alert in firing if alert.service in ("", self._service))
            self._answered()
