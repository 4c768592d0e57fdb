"""Which alerts a drill must raise and which it must not, and the port to whoever knows what fires; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

ANY_OTHER = "*"
"""As a forbidden alert: whatever is not expected."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What an experiment says of alerts, by their names."""

    expected: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything is said."""
        return bool(self.expected or self.forbidden)


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence that tags the alerts a drill expects; whoever keeps it ends it by itself."""

    alerts: tuple[str, ...]
    service: str
    ends_at: datetime
    """Hard: the last deadline of the drill's leases."""
    comment: str
    id: str = ""
    """Of the silence that this one changes; empty for a new one."""


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert that fires."""

    name: str
    since: datetime
    service: str = ""
    """Of its label `service`; empty where it has none."""


class AlertRoom(Protocol):
    """Where alerts fire and are silenced."""

    async def silence(self, silence: Silence) -> str:
        """Make or change a silence; return its id.

        Raises:
            UnreachableError: when it could not be made.
        """

    async def lift(self, silence_id: str) -> None:
        """End a silence; one that has ended, or was forgotten, is success.

        Raises:
            UnreachableError: when nobody answers; it ends at its deadline all the same.
        """

    async def firing(self) -> tuple[Firing, ...]:
        """Return what fires now, silenced or not.

        Raises:
            UnreachableError: when nobody answers.
        """


def broken(contract: Contract, fired: Iterable[Firing], since: datetime, service: str) -> tuple[str, ...]:
    """Hold what fired during a drill against its contract.

    Args:
        contract: what must and must not fire.
        fired: every alert that was seen firing while the drill ran.
        since: when the drill started; what fired before proves nothing and breaks nothing.
        service: whose alerts are meant; those of others, or of none, are as if they were ours only by name.

    Returns:
        Every breach, in words.
    """
    names = {alert.name for alert in fired if alert.since >= since and alert.service in ("", service)}
    missing = [f"expected alert {name} did not fire" for name in contract.expected if name not in names]
    wrong = [f"forbidden alert {name} fired" for name in sorted(names) if _is_forbidden(name, contract)]
    return (*missing, *wrong)


def _is_forbidden(name: str, contract: Contract) -> bool:
    if name in contract.forbidden:
        return True
    return ANY_OTHER in contract.forbidden and name not in (*contract.expected, "Watchdog")
