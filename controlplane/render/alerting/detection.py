"""How long it takes at worst until somebody is told of a harm, alert by alert, against what its row promises; pure.

    scrape + what the expression must see + evaluation + `for` + group_wait + delivery

A row that promises less than its alerts take promises what nobody would notice was broken: such a rule set is refused,
with the sum. Called by the command line, and by `pages` for the head of the rule file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil

from controlplane.degradation.matrix import Level
from controlplane.errors import UsageError
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.alertmanager import wait_of
from controlplane.render.alerting.rules import Alert, Group


@dataclass(frozen=True, slots=True)
class Addend:
    """One part of the way from the harm to whoever is told."""

    name: str
    span: timedelta
    setting: str
    """What changes it on the page."""


@dataclass(frozen=True, slots=True)
class Detection:
    """The whole way of one alert."""

    alert: str
    level: str
    addends: tuple[Addend, ...]
    promised: timedelta | None
    """What its row promises; None where it leads to none."""

    @property
    def total(self) -> timedelta:
        """The sum."""
        return sum((addend.span for addend in self.addends), timedelta(0))

    @property
    def kept(self) -> bool:
        """Whether the row's promise leaves any time to act."""
        return self.promised is None or self.total < self.promised

    @property
    def arithmetic(self) -> str:
        """The sum as people write it, each addend by its name."""
        parts = " + ".join(f"{addend.name} {spell_duration(addend.span)}" for addend in self.addends if addend.span)
        return f"{parts or '0s'} = {spell_duration(self.total)}"


def detections(policy: Policy, groups: Sequence[Group]) -> tuple[Detection, ...]:
    """Return the way of every alert, in the order of the rules."""
    return tuple(_detection(policy, group, alert) for group in groups for alert in group.alerts)


def _detection(policy: Policy, group: Group, alert: Alert) -> Detection:
    row = policy.degradation.rows.get(Level(alert.level))
    wait = wait_of(policy, alert.severity, alert.level)
    # `for` is over at an evaluation, so it lasts a whole number of them.
    held = group.every * ceil(alert.dwell / group.every)
    signal = alert.labels.get("signal", "")
    of = f"thresholds.{signal}" if signal in policy.thresholds else ""
    return Detection(
        alert.name,
        alert.level,
        (
            Addend("scrape", policy.publish.scrape, "publish.scrape"),
            Addend("window", alert.needs, f"{of}.window" if of else "publish.scrape"),
            Addend("evaluation", group.every, "publish.evaluation"),
            Addend("for", held, f"{of}.for" if of else "publish.evaluation"),
            Addend("group_wait", wait, "publish.group_wait"),
            Addend("delivery", policy.publish.delivery, "publish.delivery"),
        ),
        row.within if row else None,
    )


def refuse(policy: Policy, groups: Sequence[Group]) -> None:
    """Refuse rules that are slower than the promise of their row.

    Raises:
        UsageError: with the sum of every alert that is too slow.
    """
    late = [found for found in detections(policy, groups) if not found.kept]
    if not late:
        return
    lines = [f"{d.alert}: {d.arithmetic}, and {d.level} promises {spell_duration(d.promised or _ZERO)}" for d in late]
    addends = sorted((a for found in late for a in found.addends if a.span), key=lambda a: a.span, reverse=True)
    settings = dict.fromkeys(addend.setting for addend in addends)
    levels = dict.fromkeys(found.level for found in late)
    raise UsageError(
        f"{len(late)} alert{'s' if len(late) > 1 else ''} would come later than what the row promises",
        "".join(f"\n    {line}" for line in lines),
        f"shorten {' or '.join(f'`{name}`' for name in settings)}, or promise more: "
        + ", ".join(f"`degradation.{level}.within`" for level in levels),
    )


_ZERO = timedelta(0)


def table(found: Sequence[Detection]) -> tuple[str, ...]:
    """Write the ways of all alerts that lead to a row, one a line under a head, in columns."""
    head = ("alert", "row", *(addend.name for addend in found[0].addends), "total", "promised") if found else ()
    rows = [
        (
            one.alert, one.level, *(spell_duration(addend.span) for addend in one.addends),
            spell_duration(one.total), spell_duration(one.promised) + ("" if one.kept else "  TOO LATE"),
        )
        for one in found
        if one.promised is not None
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return tuple(
        "  ".join(
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
        if rows
    )
