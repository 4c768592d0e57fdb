"""An alert as somebody tells it: what is read of a webhook, and which of two tellings of one alert is the later; pure.

Alertmanager (payload version 4) and Grafana-managed alerting (version 1: the same shape and more) are read alike.
Called by `web/intake` for what is posted, and by `flows/reconcile` for what Alertmanager's API lists.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Literal

import msgspec

LABELS_AT_MOST = 64
"""Labels, and annotations, that are kept of one alert; what tells alerts apart is the fingerprint of them all."""
VALUE_AT_MOST = 4096
"""Characters that are kept of one value."""
NAME_AT_MOST = 256
"""Characters that are kept of a label's name, and of an alert's own name and service."""
FINGERPRINT_AT_MOST = 64
INSTANTS_KNOWN = 4096
"""Times that are remembered as they were written: the alerts of one rule start together, and are told over and over."""
NAMED = ("alertname", "service")
"""Labels that are kept whatever else is left out: the matrix asks for them."""

# FNV-1a of 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
_FNV_OFFSET, _FNV_PRIME, _64_BITS = 14695981039346656037, 1099511628211, (1 << 64) - 1
_SEPARATOR = b"\xff"


class Status(StrEnum):
    """Whether an alert fires."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Source(StrEnum):
    """Who told of it: Alertmanager can be asked what fires, Grafana is only heard."""

    ALERTMANAGER = "alertmanager"
    GRAFANA = "grafana"


class Alert(msgspec.Struct, frozen=True, gc=False):
    """One telling of one alert; a structure of msgspec's, since a frozen dataclass takes five times as long to make."""

    fingerprint: str
    """Of all its labels, as whoever tells of it computes it."""
    starts_at: datetime
    """Aware UTC, whole milliseconds: Alertmanager's API gives no more of what its webhook gives to the nanosecond."""
    status: Status
    name: str
    service: str = ""
    """Of its label `service`; empty where it has none."""
    ends_at: datetime | None = None
    """Aware UTC; None while it fires."""
    source: Source = Source.ALERTMANAGER
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    annotations: Mapping[str, str] = msgspec.field(default_factory=dict)
    generator: str = ""
    """URL of what made it."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One body that was posted."""

    alerts: tuple[Alert, ...]
    truncated: int = 0
    """How many alerts whoever sent it left out of it."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A body that can never be right, whoever reads it and when."""

    why: str


def supersedes(new: Alert, old: Alert) -> bool:
    """Tell whether a telling changes what is known of an alert by an earlier one; `store/alerts` says the same in SQL.

    A later start outweighs an earlier one, and an end outweighs its own start: in whatever order, and however often,
    tellings arrive, what is left is the same. So each (fingerprint, start, status) changes something once at most.
    Alertmanager moves the start of an alert back when it learns of an earlier one; such an alert's end is told with the
    earlier start, and is known by being later than the start that we know.
    """
    if new.starts_at != old.starts_at:
        return new.starts_at > old.starts_at or (
            _ends(new, old) and new.ends_at is not None and new.ends_at >= old.starts_at
        )
    return _ends(new, old)


def _ends(new: Alert, old: Alert) -> bool:
    return new.status is Status.RESOLVED and old.status is Status.FIRING


def latest(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    """Leave of several tellings of an alert the one that counts, in the order of the fingerprints.

    An order that everybody keeps lets two writers of one database wait for each other and never in a circle.
    """
    kept: dict[str, Alert] = {}
    for alert in alerts:
        old = kept.get(alert.fingerprint)
        if old is None or supersedes(alert, old):
            kept[alert.fingerprint] = alert
    return tuple(kept[fingerprint] for fingerprint in sorted(kept))


# -- reading -----------------------------------------------------------------------------------------------------------


class _Told(msgspec.Struct, gc=False):
    """An alert of a webhook; what it has besides is left alone."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    startsAt: str  # noqa: N815 - its name on the wire
    endsAt: str | None = None  # noqa: N815
    annotations: dict[str, str] | None = None
    generatorURL: str = ""  # noqa: N815
    fingerprint: str = ""


class _Body(msgspec.Struct):
    alerts: list[_Told]
    truncatedAlerts: int = 0  # noqa: N815
    orgId: int | None = None  # noqa: N815 - Grafana's alone


class _Listed(msgspec.Struct, gc=False):
    """An alert of Alertmanager's `/api/v2/alerts`, which lists nothing but what fires."""

    labels: dict[str, str]
    startsAt: str  # noqa: N815
    annotations: dict[str, str] | None = None
    generatorURL: str = ""  # noqa: N815
    fingerprint: str = ""


_STATUS = {status.value: status for status in Status}
_BODY = msgspec.json.Decoder(_Body)
_LISTING = msgspec.json.Decoder(list[_Listed])


def read_webhook(body: bytes) -> Webhook | Unreadable:
    """Read what Alertmanager or Grafana posts.

    Args:
        body: JSON in UTF-8.

    Returns:
        Every alert in it, with labels in bounds; or why it can never be read.
    """
    try:
        told = _BODY.decode(body)
        source = Source.ALERTMANAGER if told.orgId is None else Source.GRAFANA
        return Webhook(tuple(_alert(a, _STATUS[a.status], a.endsAt, source) for a in told.alerts), told.truncatedAlerts)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        return Unreadable(str(error) or "nested too deep")


def read_listing(body: bytes) -> tuple[Alert, ...] | Unreadable:
    """Read what Alertmanager's `/api/v2/alerts` answers: everything that fires there."""
    try:
        return tuple(_alert(a, Status.FIRING, None, Source.ALERTMANAGER) for a in _LISTING.decode(body))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        return Unreadable(str(error) or "nested too deep")


def _alert(told: _Told | _Listed, status: Status, ends_at: str | None, source: Source) -> Alert:
    labels, annotations, given, generator = told.labels, told.annotations, told.fingerprint, told.generatorURL
    kept = bounded(labels)
    return Alert(
        given if 0 < len(given) <= FINGERPRINT_AT_MOST and "\0" not in given else fingerprint(labels),
        _instant(told.startsAt),
        status,
        _kept(kept.get("alertname", ""), NAME_AT_MOST),
        _kept(kept.get("service", ""), NAME_AT_MOST),
        _instant(ends_at) if ends_at and status is Status.RESOLVED else None,
        source,
        kept,
        bounded(annotations) if annotations else {},
        _kept(generator, VALUE_AT_MOST),
    )


@lru_cache(INSTANTS_KNOWN)
def _instant(text: str) -> datetime:
    """Read an RFC 3339 time; what is finer than a millisecond is cut off, not rounded, as Alertmanager's API does.

    Raises:
        ValueError: when it is none.
        OverflowError: when it is no time in UTC.
    """
    at = datetime.fromisoformat(text)
    if finer := at.microsecond % 1000:
        at = at.replace(microsecond=at.microsecond - finer)
    if at.tzinfo is UTC:
        return at
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def bounded(labels: dict[str, str]) -> dict[str, str]:
    """Return labels of which an alert may have any number and size, within what we keep."""
    names, values = "".join(labels), "".join(labels.values())
    if len(labels) <= LABELS_AT_MOST and len(names) <= NAME_AT_MOST and len(values) <= VALUE_AT_MOST:
        if "\0" not in names and "\0" not in values:
            return labels
    elif len(labels) > LABELS_AT_MOST:
        first = [name for name in NAMED if name in labels]
        rest = (name for name in labels if name not in NAMED)
        chosen = [*first, *(name for name, _ in zip(rest, range(LABELS_AT_MOST - len(first)), strict=False))]
        labels = {name: labels[name] for name in chosen}
    return {_kept(name, NAME_AT_MOST): _kept(value, VALUE_AT_MOST) for name, value in labels.items()}


def _kept(text: str, at_most: int) -> str:
    """Return a text within its bound and without the one character that PostgreSQL does not store."""
    if len(text) > at_most:
        text = text[:at_most]
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text


def fingerprint(labels: Mapping[str, str]) -> str:
    """Compute an alert's fingerprint as Prometheus and Alertmanager do, for whoever leaves it out.

    https://github.com/prometheus/common/blob/main/model/signature.go: FNV-1a over the sorted names and values, each
    followed by a byte that is not in UTF-8.
    """
    known = _FNV_OFFSET
    for name in sorted(labels):
        for byte in name.encode() + _SEPARATOR + labels[name].encode() + _SEPARATOR:
            known = ((known ^ byte) * _FNV_PRIME) & _64_BITS
    return f"{known:016x}"
