"""Keeping what the rules in `cause` look at: a few minutes of every signal, hours of memory, the last looks; pure.

Wiring hands it every look and, every few seconds, the verdicts. It costs one short list per signal and a handful of
numbers per endpoint that is not well: of endpoints whose looks all succeed only the last times to connect are kept.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from controlplane.incidents.cause import Clues, EndpointClues
from controlplane.incidents.trail import Trail
from controlplane.probes.probe import HELD, Failure, Look
from controlplane.slo.verdict import Verdict

KEEP_S = 600.0
"""How long the trails of signals are kept."""
SLOW_EVERY_S = 60.0
"""Memory is kept once a minute, for hours: leaks are slow."""
SLOW_POINTS = 24 * 60
_SLOW = ("memory_utilization",)
_SILENT = (Failure.REFUSED, Failure.RESET, Failure.TIMEOUT, Failure.NETWORK)
"""Failures after which nothing is known to live there; a wrong status is an answer."""
_CONNECTS = 30
_LINES = 20


@dataclass(slots=True)
class _Seen:
    """What is kept of one endpoint."""

    node: str
    pool: str
    looks: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=60))
    """(when, kind of failure or empty)."""
    connect: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_CONNECTS))
    health_ok: bool = False
    completions_lost: int = 0
    refused: bool = False
    version: str = ""
    version_changed_at: float | None = None
    client_errors: int = 0


class ClueBook:
    """The clues of every pool."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Seen] = {}
        self._trails: dict[tuple[str, str], deque[tuple[float, float]]] = {}
        self._lines: dict[str, deque[str]] = {}
        self._events: deque[tuple[float, str]] = deque(maxlen=_LINES)

    def take(self, look: Look) -> None:
        """Take one look in."""
        seen = self._endpoints.get(look.endpoint.name)
        if seen is None:
            seen = self._endpoints[look.endpoint.name] = _Seen(look.endpoint.node, look.endpoint.pool)
        if look.says_nothing:
            return
        if look.probe in (HELD, "tcp"):
            seen.refused = look.failure is Failure.REFUSED
            if look.ok:
                seen.connect.append((look.at, look.took_s))
        elif look.says_alive:
            self._outcome(seen, look)
        elif look.page is not None and look.page.notes:
            for note in look.page.notes:
                if look.probe == "events":
                    self.event(note, look.at)
                else:
                    self.line(look.endpoint.pool, note)

    def _outcome(self, seen: _Seen, look: Look) -> None:
        if seen.looks or not look.ok:
            seen.looks.extend([(look.at, look.failure or "")] * look.asked)
            if look.ok and not any(failure for _, failure in seen.looks):
                seen.looks.clear()
        if look.ok:
            seen.refused = False
        if look.probe == "http":
            seen.health_ok = look.ok
        else:
            seen.completions_lost = seen.completions_lost + 1 if look.failure is Failure.TIMEOUT else 0
        wrong = look.failure is Failure.ANSWER or (look.failure is Failure.STATUS and look.detail.startswith("HTTP 4"))
        if wrong and seen.version_changed_at is not None:
            seen.client_errors += 1

    def version(self, endpoint: str, version: str, at: float) -> None:
        """Note which version an endpoint runs."""
        seen = self._endpoints.get(endpoint)
        if seen is None or not version or seen.version == version:
            return
        if seen.version:
            seen.version_changed_at, seen.client_errors = at, 0
        seen.version = version

    def judged(self, verdicts: Iterable[Verdict], now: float) -> None:
        """Keep what the pools' signals showed."""
        for verdict in verdicts:
            for evidence in verdict.evidence:
                if evidence.value is not None:
                    self._keep(verdict.pool, evidence.signal, now, evidence.value)

    def _keep(self, pool: str, signal: str, now: float, value: float) -> None:
        slow = signal in _SLOW
        trail = self._trails.setdefault((pool, signal), deque(maxlen=SLOW_POINTS if slow else None))
        if slow and trail and now - trail[-1][0] < SLOW_EVERY_S:
            return
        trail.append((now, value))
        while not slow and trail[0][0] < now - KEEP_S:
            trail.popleft()

    def line(self, pool: str, text: str) -> None:
        """Keep a log line in which an engine says that it dies."""
        self._lines.setdefault(pool, deque(maxlen=_LINES)).append(text)

    def event(self, text: str, at: float) -> None:
        """Keep what Kubernetes reported."""
        self._events.append((at, text))

    def forget(self, endpoints: Iterable[str]) -> None:
        """Keep only these endpoints."""
        kept = set(endpoints)
        for name in [name for name in self._endpoints if name not in kept]:
            del self._endpoints[name]

    def clues(self, pool: str, now: float) -> Clues:
        """Return the clues of one pool."""
        signals: dict[str, Trail] = {name: tuple(trail) for (of, name), trail in self._trails.items() if of == pool}
        endpoints = tuple(_clues(name, seen, now) for name, seen in self._endpoints.items() if seen.pool == pool)
        events = tuple(text for at, text in self._events if at >= now - KEEP_S)
        return Clues(now, signals, endpoints, tuple(self._lines.get(pool, ())), events)


def _clues(name: str, seen: _Seen, now: float) -> EndpointClues:
    recent = [failure for at, failure in seen.looks if at >= now - 60.0]
    silent = len(recent) >= 3 and all(failure in _SILENT for failure in recent[-3:])
    return EndpointClues(
        name=name,
        node=seen.node,
        down=seen.refused or silent,
        looks=len(recent),
        failures=Counter(failure for failure in recent if failure),
        health_ok=seen.health_ok,
        completions_lost=seen.completions_lost,
        connect=tuple(seen.connect),
        version_changed_at=seen.version_changed_at,
        client_errors=seen.client_errors,
    )
