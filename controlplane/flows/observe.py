"""The journey that never ends: looks -> windows -> verdicts, which `decide` then acts on.

`runtime/scheduler` calls `look` for each probe and endpoint at their interval; the connections held by `probes/wire`
report by themselves. Every look is taken in by `take`; hard evidence is judged at once, everything else at the next
tick.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from time import monotonic

import structlog

from controlplane.degradation.actuator import RoutePlan
from controlplane.fleet.inventory import InventorySource
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY, Endpoint
from controlplane.flows.evidence import Assessor
from controlplane.flows.records import EndpointRecord, Patience, Records
from controlplane.flows.standing import EndpointStanding, PoolStanding
from controlplane.flows.turns import Turns
from controlplane.flows.vantage import Vantage
from controlplane.probes.gateway_counts import Counts
from controlplane.probes.probe import Look
from controlplane.slo.threshold import Band, Threshold
from controlplane.slo.verdict import Verdict, judge
from controlplane.telemetry import Metrics

log = structlog.get_logger("observe")


@dataclass(frozen=True, slots=True)
class ObservePorts:
    """What this journey touches."""

    inventory: InventorySource
    gateway: Endpoint | None
    """The gateway as something to look at; None when the fleet has none."""
    judged: Callable[[Mapping[str, Verdict]], None]
    """Told the newest verdict on each pool, by its name; whoever decides acts on them at once."""
    hold: Callable[[Endpoint, Callable[[Look], None]], Callable[[], None]]
    """Holds a connection to an endpoint and reports when it comes and goes; returns what lets go of it."""
    spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
    """Starts a task in the process's own task group."""
    changed: Callable[[], None]
    """Tells whoever shows the standing that it changed."""
    metrics: Metrics
    now: Callable[[], datetime]
    patience: Mapping[str, Patience] = field(default_factory=dict)
    """By probe: how many looks in a row make an endpoint down, and up again."""
    every_s: Mapping[str, float] = field(default_factory=dict)
    """By probe: seconds between its looks."""
    noticed: Callable[[Look], None] = lambda _: None
    """Told of every look, for whoever keeps clues and budgets; it must be quick."""
    ask_gateway: Callable[[Callable[[float, Counts], None]], None] = lambda _: None
    """Reads what the gateway counted of each pool; reports it, or nothing where it counts nothing."""


class Observer:
    """Watches one service."""

    def __init__(self, service: str, thresholds: Mapping[str, Threshold], ports: ObservePorts) -> None:
        self._service = service
        self._ports = ports
        self._records = Records(thresholds, ports.patience, ports.every_s)
        self._assessor = Assessor(thresholds)
        self._vantage = Vantage()
        self.targets: tuple[Endpoint, ...] = ()
        """Everything that is looked at; another tuple whenever the inventory changed."""
        self._models: dict[str, str] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._holding: dict[Endpoint, Callable[[], None]] = {}
        self._turns = Turns(self.take, ports.spawn, lambda probe: ports.metrics.probes_skipped.labels(probe).inc())
        self.look = self._turns.look
        """Looks at an endpoint once by a probe: (probe, endpoint)."""
        self._count = ports.metrics.looks.take
        self._judging: asyncio.TimerHandle | None = None
        self._judged_at = self._judging_took_s = 0.0
        self._problems: tuple[str, ...] = ()
        ports.metrics.verdict.by = self._verdicts_told
        ports.metrics.signal.by = self._signals_told

    # -- looking ---------------------------------------------------------------------------------------------------

    def _held(self, look: Look) -> None:
        self.take(look)

    def take(self, look: Look) -> EndpointRecord | None:
        """Take one look in; an endpoint that went up or down is judged at once."""
        self._count(look.probe, look.failure or "ok", look.took_s)
        self._ports.noticed(look)
        record = self._records.find(look.endpoint)
        if record and self._records.take(record, look):
            up = not record.down
            log.info("endpoint", endpoint=look.endpoint.name, up=up, detail=record.detail)
            self._ports.metrics.endpoint_up.labels(self._service, look.endpoint.pool, look.endpoint.name).set(up)
            self.judge_soon()
        return record

    def ask_gateway(self) -> None:
        """Ask the gateway what it counted; what it says is judged by at the next evaluation."""
        self._vantage.asked()
        self._ports.ask_gateway(self._vantage.take)

    def _silent_from(self, pool: str) -> float | None:
        """Return when the last endpoint of a pool fell silent; None where all are refused, or no look ever failed."""
        silent = (r.silent_from for r in self._records.pools[pool].values() if r.silent_from and not r.refused)
        return max(silent, default=None)

    def judge_soon(self) -> None:
        """Judge in this turn of the loop, once for all that come in it; and never more than half of the time."""
        if self._judging is None:
            pause_s = max(0.0, self._judged_at + self._judging_took_s - monotonic())
            self._judging = asyncio.get_running_loop().call_later(pause_s, self.evaluate)

    def follow_inventory(self) -> None:
        """Bring the records in line with the inventory, and hold a connection to each endpoint there is."""
        inventory = self._ports.inventory.read()
        self._problems = inventory.problems
        gateway = (self._ports.gateway,) if self._ports.gateway else ()
        wanted = (*gateway, *inventory.endpoints)
        if wanted == self.targets:
            return
        by_pool: dict[str, list[Endpoint]] = {name: [] for name in self._records.pools}
        for endpoint in wanted:
            by_pool.setdefault(endpoint.pool, []).append(endpoint)
        for gone in set(self.targets) - set(wanted):
            self._ports.metrics.endpoint_up.remove(self._service, gone.pool, gone.name)
        for name, endpoints in by_pool.items():
            self._records.set_endpoints(name, endpoints)
            self._models[name] = next((e.model for e in endpoints if e.model), "")
        self.targets = wanted
        self._turns.keep({endpoint.name for endpoint in wanted})
        self._hold(wanted)

    def _hold(self, wanted: tuple[Endpoint, ...]) -> None:
        """Hold a connection to each endpoint as it is now: what is said of one as it was before counts for nobody.

        Held anew before it is let go of, so that an endpoint whose address stays keeps its connections.
        """
        for endpoint in wanted:
            if endpoint not in self._holding:
                self._holding[endpoint] = self._ports.hold(endpoint, self._held)
        for gone in self._holding.keys() - set(wanted):
            self._holding.pop(gone)()

    def inventory_changed(self) -> None:
        """Follow the inventory now, and judge what that changed: an endpoint that is gone is asked no more."""
        before = self.targets
        self.follow_inventory()
        if self.targets is not before:
            self.judge_soon()
            self._ports.changed()

    # -- judging --------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Judge every pool, and let whoever decides act on it."""
        now = monotonic()
        if self._judging:
            self._judging.cancel()
            self._judging = None
        with self._ports.metrics.evaluation_seconds.time():
            for name, evidence in self._assessor.evidence(self._records, now).items():
                weighed = self._vantage.weigh(name, evidence, partial(self._silent_from, name))
                self._verdicts[name] = judge(name, weighed)
            self._ports.judged(self._verdicts)
        self._ports.changed()
        self._judged_at = monotonic()
        self._judging_took_s = self._judged_at - now

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The newest verdict on each pool."""
        return tuple(self._verdicts.values())

    # -- showing ---------------------------------------------------------------------------------------------------

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from seeing everything, such as an inventory file that cannot be read."""
        return self._problems

    def pools(self, plan: RoutePlan | None) -> tuple[PoolStanding, ...]:
        """Return how each pool stands: the gateway first, then the primary, then the others by name.

        Args:
            plan: how traffic is split over them; None where nobody splits it.
        """
        order = sorted(self._records.pools, key=lambda name: (name != GATEWAY_POOL, name != PRIMARY, name))
        return tuple(self._pool_standing(name, plan) for name in order)

    def _pool_standing(self, pool: str, plan: RoutePlan | None) -> PoolStanding:
        now = self._ports.now()
        offset = now.timestamp() - monotonic()
        endpoints = tuple(
            EndpointStanding(
                endpoint=record.endpoint,
                up=not record.down if record.looked else None,
                since=datetime.fromtimestamp(record.up_since + offset, tz=now.tzinfo) if record.looked else None,
                detail=record.detail,
                answer_s=record.answer_s,
                first_token_s=record.first_token_s,
                tokens_per_s=record.tokens_per_s,
            )
            for record in self._records.pools[pool].values()
        )
        weight = None if pool == GATEWAY_POOL or plan is None else plan.weights.get(pool, 0)
        verdict = self._verdicts.get(pool, Verdict(pool, Band.UNKNOWN, ()))
        return PoolStanding(pool, self._models.get(pool, ""), verdict, endpoints, weight)

    def _verdicts_told(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Give every pool's verdict, for whoever scrapes us."""
        for name, verdict in self._verdicts.items():
            for band in Band:
                yield (self._service, name, band), band is verdict.band

    def _signals_told(self) -> Iterator[tuple[tuple[str, ...], float]]:
        """Give every signal that is known, for whoever scrapes us."""
        for name, verdict in self._verdicts.items():
            for evidence in verdict.evidence:
                if evidence.value is not None:
                    yield (self._service, name, evidence.signal), evidence.value
