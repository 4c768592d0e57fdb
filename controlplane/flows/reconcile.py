"""The journey that makes good what no webhook told: our books are held against what Alertmanager lists.

A webhook is lost when Alertmanager gives up, or is told 4xx by something between; one may leave alerts out
(`truncatedAlerts`); and nothing is heard while we are away. So it is asked each minute, and when alerts were left out.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from controlplane.errors import UnreachableError
from controlplane.incidents.alert import Source, Unreadable, latest, read_listing
from controlplane.incidents.firing import WATCHDOG, AlertBook, Change, Kind, compare
from controlplane.telemetry import Metrics

KEPT = timedelta(days=7)
"""How long an alert that ended is remembered: so long a late telling of it is known to be late."""
KEPT_AT_MOST = 100_000
"""Alerts that ended which are remembered, however young they are."""

log = structlog.get_logger("reconcile")


@dataclass(frozen=True, slots=True)
class ReconcilePorts:
    """What this journey touches."""

    listing: Callable[[], Awaitable[bytes]] | None
    """What Alertmanager's `/api/v2/alerts` answers; None without one on the page."""
    book: AlertBook
    heard: Callable[[Sequence[Change]], None]
    """Told what changed, at once."""
    counted: Callable[[Mapping[Kind, int]], None]
    """Told how many fire of each kind."""
    metrics: Metrics
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at Alertmanager found, for the next one."""

    absent: frozenset[str] = frozenset()
    """Fingerprints of what fires by our books, and was not listed.

    An Alertmanager that was restarted lists nothing until Prometheus has sent again what fires, which it does each
    minute. So an alert has ended when two looks, a minute apart, have not found it.
    """


async def reconcile(ports: ReconcilePorts, last: Look) -> Look:
    """Take in what we never heard of, end what has ended, forget what is old, and count anew what fires.

    Args:
        ports: what is touched.
        last: what the last look found; it was a minute ago, or more.

    Raises:
        StoreError: when the database refuses.
    """
    look = last
    if ports.listing:
        try:
            look = await _compare(ports, ports.listing, last)
        except UnreachableError as error:
            log.warning("alerts not reconciled", what=error.what, why=error.why, fix=error.fix)
    await ports.book.forget(ports.now() - KEPT, KEPT_AT_MOST)
    await recount(ports)
    return look


async def _compare(ports: ReconcilePorts, listing: Callable[[], Awaitable[bytes]], last: Look) -> Look:
    asked_at = ports.now()
    listed = read_listing(await listing())
    if isinstance(listed, Unreadable):
        raise UnreachableError(
            "Alertmanager answers with no list of alerts", listed.why, "see `alertmanager:` of the page"
        )
    found = compare(await ports.book.firing(Source.ALERTMANAGER), listed, asked_at)
    taken_in = await ports.book.keep(latest(found.unheard), ports.now(), asked_at)
    ended = await ports.book.end(tuple(sorted(found.absent & last.absent)), ports.now(), asked_at)
    for what, changes in (("taken_in", taken_in), ("ended", ended)):
        ports.metrics.alerts_reconciled.labels(what).inc(len(changes))
        if changes:
            log.info("alerts reconciled", what=what, alerts=len(changes), names=_names(changes))
            ports.heard(changes)
    return replace(last, absent=found.absent - last.absent)


def _names(changes: tuple[Change, ...]) -> list[str]:
    return sorted({change.name for change in changes})[:5]


async def recount(ports: ReconcilePorts) -> None:
    """Count what fires by the books, which another control plane on the same database may have added to.

    Raises:
        StoreError: when the database refuses.
    """
    ports.counted(await ports.book.tally())


async def remember(ports: ReconcilePorts) -> None:
    """Know at a start what fired when we were stopped, and when a watchdog was heard.

    Raises:
        StoreError: when the database refuses.
    """
    await recount(ports)
    for source, at in (await ports.book.heard_at(WATCHDOG)).items():
        ports.metrics.watchdog_heard_at.labels(source).set(at.timestamp())
