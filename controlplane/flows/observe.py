"""The journey that never ends: looks -> windows -> verdicts -> rows of the matrix -> levers.

`runtime/scheduler` calls `look` for each probe and endpoint at their interval; the connections held by `probes/wire`
report by themselves. Every look is taken in by `take`; hard evidence is judged at once, everything else at the next
tick.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from time import monotonic

import structlog

from controlplane.degradation.actuator import Pull, Receipt, ReceiptState, RoutePlan, route
from controlplane.degradation.machine import Effect, Phase, Reading, RowState, outcome, share_given_back, step
from controlplane.degradation.matrix import LEVELS, Answer, Condition, Degradation, Level, Row, Truth, evaluate
from controlplane.errors import ControlplaneError
from controlplane.fleet.inventory import InventorySource
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY, Endpoint
from controlplane.flows.evidence import Assessor
from controlplane.flows.records import EndpointRecord, Patience, Records
from controlplane.flows.standing import EndpointStanding, PoolStanding, RowStanding, Standing
from controlplane.probes.probe import Failure, Look, Probe, StartedProbe
from controlplane.slo.threshold import Band, Threshold
from controlplane.slo.verdict import Evidence, Verdict, judge
from controlplane.telemetry import Metrics

_FELT_BY_USERS = ("latency_p99", "error_rate")
"""Signals of the primary that must not be in breach while traffic goes back to it."""

CLOSE_AGAIN_S = 1.0

log = structlog.get_logger("observe")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a row is told to do, with everything the journey of an action needs."""

    row: Row
    before: RoutePlan
    after: RoutePlan
    because: tuple[str, ...]
    detected_at: datetime
    decided_at: datetime


@dataclass(frozen=True, slots=True)
class Levers:
    """The journeys of an action, as `switch` tells them; wiring joins the two."""

    engage: Callable[[Decision], Awaitable[Receipt | None]]
    shift: Callable[[Receipt, RoutePlan, str], Awaitable[bool]]
    close: Callable[[Receipt], Awaitable[Receipt]]
    resolve: Callable[[Level, str], Awaitable[None]]
    """Ends the incident of a row that never got as far as a receipt: (level, why)."""


@dataclass(frozen=True, slots=True)
class ObservePorts:
    """What this journey touches."""

    inventory: InventorySource
    gateway: Endpoint | None
    """The gateway as something to look at; None when the fleet has none."""
    levers: Levers | None
    """None when there is no gateway: the matrix can then only say what it would do."""
    hold: Callable[[Endpoint, Callable[[Look], None]], Callable[[], None]]
    """Holds a connection to an endpoint and reports when it comes and goes; returns what lets go of it."""
    spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]]
    """Starts a task in the process's own task group."""
    changed: Callable[[], None]
    """Tells whoever shows the standing that it changed."""
    metrics: Metrics
    now: Callable[[], datetime]
    patience: Patience = field(default_factory=Patience)
    """How many looks in a row make an endpoint down, and up again."""
    acting: Callable[[], bool] = lambda: True
    """Whether this control plane is in charge; one that is not only watches."""
    noticed: Callable[[Look], None] = lambda _: None
    """Told of every look, for whoever keeps clues and budgets; it must be quick."""


@dataclass(slots=True)
class _RowRecord:
    """One row while the control plane runs."""

    row: Row
    state: RowState = field(default_factory=RowState)
    since: datetime | None = None
    memory: dict[Condition, float] = field(default_factory=dict)
    answer: Answer = field(default_factory=lambda: Answer(Truth.UNKNOWN))
    detected_at: datetime | None = None
    """When the trigger last began to hold."""
    receipt: Receipt | None = None
    closing: bool = False
    """All traffic is back, and the receipt does not say so yet: the row is shown as releasing until it does."""
    because: tuple[str, ...] = ()

    @property
    def shown(self) -> Phase:
        """The phase that others see."""
        return Phase.RELEASING if self.closing else self.state.phase


@dataclass(slots=True)
class _End:
    """How an effect ended."""

    ok: bool = False


class Observer:
    """Watches one service and moves its matrix."""

    def __init__(
        self, service: str, thresholds: Mapping[str, Threshold], degradation: Degradation, ports: ObservePorts
    ) -> None:
        self._service = service
        self._degradation = degradation
        self._ports = ports
        self._records = Records(thresholds, ports.patience)
        self._assessor = Assessor(thresholds)
        self.targets: tuple[Endpoint, ...] = ()
        """Everything that is looked at; another tuple whenever the inventory changed."""
        self._models: dict[str, str] = {}
        self._rows = {level: _RowRecord(row) for level, row in degradation.rows.items()}
        self._verdicts: dict[str, Verdict] = {}
        self._holding: dict[str, Callable[[], None]] = {}
        self._looking: set[tuple[str, str]] = set()
        self._counted: dict[tuple[str, Failure | None], tuple[Callable[[], None], Callable[[float], None]]] = {}
        self._starting: dict[Probe, Callable[[Endpoint, Callable[[Look], None]], None] | None] = {}
        self._judging: asyncio.TimerHandle | None = None
        self._judged_at = self._judging_took_s = 0.0
        self._problems: tuple[str, ...] = ()
        self._level_since = ports.now()
        self._plan = RoutePlan({PRIMARY: 100})
        self._lever = asyncio.Lock()

    # -- looking ---------------------------------------------------------------------------------------------------

    def look(self, probe: Probe, endpoint: Endpoint) -> None:
        """Look at an endpoint once; when its last look has not ended, this one is left out and counted."""
        key = (probe.name, endpoint.name)
        if key in self._looking:
            self._ports.metrics.probes_skipped.labels(probe.name).inc()
            return
        self._looking.add(key)
        if probe not in self._starting:  # Asking a protocol whether it is met costs as much as a look.
            self._starting[probe] = probe.start if isinstance(probe, StartedProbe) else None
        start = self._starting[probe]
        if start:
            start(endpoint, partial(self._looked, probe, key))
        else:
            self._ports.spawn(self._look_once(probe, endpoint, key))

    async def _look_once(self, probe: Probe, endpoint: Endpoint, key: tuple[str, str]) -> None:
        """Look by a probe that has to be awaited, in a task of its own: one that is slow delays no other."""
        try:
            self.take(await probe.look(endpoint))
        finally:
            self._looking.discard(key)

    def _looked(self, probe: Probe, key: tuple[str, str], look: Look) -> None:
        self._looking.discard(key)
        record = self.take(look)
        # An endpoint that does not answer is asked again at once: a hang is then known long before the next turns come.
        if look.failure is Failure.TIMEOUT and look.says_alive and record and not record.down:
            self.look(probe, look.endpoint)

    def _held(self, look: Look) -> None:
        self.take(look)

    def take(self, look: Look) -> EndpointRecord | None:
        """Take one look in; an endpoint that went up or down is judged at once."""
        counted = self._counted.get((look.probe, look.failure))
        if counted is None:
            metrics = self._ports.metrics
            result, seconds = metrics.probes.labels(look.probe, look.failure or "ok"), metrics.probe_seconds
            counted = self._counted[look.probe, look.failure] = result.inc, seconds.labels(look.probe).observe
        counted[0]()
        counted[1](look.took_s)
        self._ports.noticed(look)
        record = self._records.find(look.endpoint)
        if record and self._records.take(record, look):
            up = not record.down
            log.info("endpoint", endpoint=look.endpoint.name, up=up, detail=record.detail)
            self._ports.metrics.endpoint_up.labels(self._service, look.endpoint.pool, look.endpoint.name).set(up)
            self._judge_soon()
        return record

    def _judge_soon(self) -> None:
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
        held = {f"{e.name} {e.url}": e for e in wanted}
        for key in [k for k in self._holding if k not in held]:
            self._holding.pop(key)()
        for key, endpoint in held.items():
            if key not in self._holding:
                self._holding[key] = self._ports.hold(endpoint, self._held)

    # -- judging and deciding --------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Judge every pool, advance every row, and start whatever the rows ask for."""
        now = monotonic()
        if self._judging:
            self._judging.cancel()
            self._judging = None
        with self._ports.metrics.evaluation_seconds.time():
            for name, evidence in self._assessor.evidence(self._records, now).items():
                self._verdicts[name] = judge(name, evidence)
            for level in sorted(self._rows, reverse=True, key=LEVELS.index):
                self._advance(self._rows[level], now)
        self._export()
        self._ports.changed()
        self._judged_at = monotonic()
        self._judging_took_s = self._judged_at - now

    def _advance(self, record: _RowRecord, now: float) -> None:
        verdict = self._verdicts.get(PRIMARY)
        evidence = {e.signal: e for e in verdict.evidence} if verdict else {}
        record.answer, record.memory = evaluate(record.row.when, evidence, record.memory, now)
        if record.answer.truth in (Truth.NO, Truth.UNKNOWN):
            record.detected_at = None
        elif record.detected_at is None:
            record.detected_at = self._ports.now()
        if self._ports.levers is None or not self._ports.acting():
            return
        reading = Reading(record.answer.truth, primary_is_well(evidence))
        state, effects = step(record.state, reading, record.row, self._degradation.mode, now)
        self._move(record, state)
        for effect in effects:
            self._begin(record, effect)

    def _move(self, record: _RowRecord, state: RowState) -> None:
        if state.phase is not record.state.phase or record.since is None:
            level_before = self.level
            record.since = self._ports.now()
            record.state = state
            if self.level is not level_before:
                self._level_since = record.since
            log.info("row", row=record.row.level, phase=state.phase, because=record.answer.because)
        record.state = state

    # -- acting ----------------------------------------------------------------------------------------------------

    def _begin(self, record: _RowRecord, effect: Effect) -> None:
        """Start carrying an effect out; the row is busy until it has ended."""
        if effect is Effect.ENGAGE:
            now = self._ports.now()
            record.because = record.answer.because
            self._ports.spawn(self._engage(record, record.detected_at or now, now))
        elif effect is Effect.CLOSE:
            record.closing = record.receipt is not None
            self._ports.spawn(self._close(record))
        else:
            back = effect is Effect.GIVE_BACK
            given = record.row.release.steps[record.state.step] if back else 0.0
            self._ports.spawn(self._shift(record, given))

    async def _engage(self, record: _RowRecord, detected_at: datetime, decided_at: datetime) -> None:
        result = "failed"
        with self._outcome_of(record) as end:
            async with self._lever:
                after = self._plan_with(record, 1.0)
                decision = Decision(record.row, self._plan, after, record.because, detected_at, decided_at)
                receipt = await self._levers().engage(decision)
                end.ok = receipt is not None and receipt.state is ReceiptState.VERIFIED
                result = "verified" if end.ok else "failed" if receipt else "refused"
                if end.ok and receipt:
                    record.receipt, self._plan = receipt, after
                    self._time_phases(receipt)
        self._ports.metrics.switches.labels(self._service, record.row.level, result).inc()

    async def _shift(self, record: _RowRecord, given_back: float) -> None:
        what = f"{given_back:.0%} of the traffic goes back to the primary pool" if given_back else "fully engaged again"
        with self._outcome_of(record) as end:
            async with self._lever:
                plan = self._plan_with(record, 1.0 - given_back)
                end.ok = record.receipt is not None and await self._levers().shift(record.receipt, plan, what)
                if end.ok and record.receipt:
                    record.receipt, self._plan = replace(record.receipt, state=ReceiptState.REVERTING), plan

    async def _close(self, record: _RowRecord) -> None:
        """Record the end; tried until it is stored, since a receipt that stays open would engage the row again."""
        receipt, record.receipt = record.receipt, None
        while True:
            try:
                if receipt:
                    await self._levers().close(receipt)
                else:
                    await self._levers().resolve(record.row.level, "cleared without the lever")
                break
            except ControlplaneError as error:
                log.error("not closed", row=record.row.level, what=error.what, why=error.why, fix=error.fix)
                await asyncio.sleep(CLOSE_AGAIN_S)
        record.closing = False
        self._ports.changed()

    @contextmanager
    def _outcome_of(self, record: _RowRecord) -> Iterator["_End"]:
        """Tell the row how its effect ended, whatever happened: one that is never told would stay busy for ever."""
        end = _End()
        try:
            yield end
        except ControlplaneError as error:
            log.error("lever", row=record.row.level, what=error.what, why=error.why, fix=error.fix)
        except asyncio.CancelledError:
            raise  # The process stops; the next one settles what is stored.
        except BaseException:
            self._ended(record, ok=False)
            raise
        self._ended(record, ok=end.ok)

    def _ended(self, record: _RowRecord, *, ok: bool) -> None:
        state, effects = outcome(record.state, record.row, ok=ok, now=monotonic())
        self._move(record, state)
        for effect in effects:
            self._begin(record, effect)
        self.evaluate()

    def _levers(self) -> Levers:
        if self._ports.levers is None:
            raise RuntimeError("a row moved without levers")  # `_advance` returns before it could.
        return self._ports.levers

    def _plan_with(self, record: _RowRecord, strength: float) -> RoutePlan:
        """Return the split with one row at a strength and every other row as it is."""
        pulls = [Pull(record.row.level, record.row.do, strength)]
        for other in self._rows.values():
            if other is not record and other.receipt:
                pulls.append(Pull(other.row.level, other.row.do, 1.0 - share_given_back(other.state, other.row)))
        return route(pulls)

    def split_is(self, plan: RoutePlan) -> None:
        """Take note of a split that somebody else made: a rollout."""
        self._plan = plan
        self._ports.changed()

    def resume(self, receipts: tuple[Receipt, ...]) -> None:
        """Take over the rows that are engaged: by an earlier life of this control plane, or by another one."""
        for gone in self._rows.values():
            if gone.receipt and gone.receipt.id not in {r.id for r in receipts}:
                gone.receipt, gone.state, gone.since, gone.closing = None, RowState(), None, False
                self._plan = self._plan_with(gone, 0.0)
        for receipt in receipts:
            record = self._rows.get(receipt.level)
            if record is None:
                log.error("an engaged row is no longer on the page", level=receipt.level, receipt=receipt.id)
                continue
            if record.receipt and record.receipt.id == receipt.id and not self._ports.acting():
                record.receipt = receipt
                continue
            record.receipt = receipt
            record.because = receipt.because
            record.state = RowState(Phase.ENGAGED, since=monotonic())
            record.since = receipt.decided_at
            self._plan = self._plan_with(record, 1.0)
            self._level_since = receipt.decided_at

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The newest verdict on each pool."""
        return tuple(self._verdicts.values())

    # -- showing ---------------------------------------------------------------------------------------------------

    @property
    def level(self) -> Level:
        """The level in force: the most severe row whose lever is away from its normal place."""
        away = (Phase.ENGAGED, Phase.RELEASING)
        levels = [level for level, record in self._rows.items() if record.shown in away]
        return max(levels, key=LEVELS.index, default=Level.NONE)

    def standing(self) -> Standing:
        """Return how the service stands now."""
        record = self._rows.get(self.level)
        order = sorted(self._records.pools, key=lambda name: (name != GATEWAY_POOL, name != PRIMARY, name))
        return Standing(
            service=self._service,
            at=self._ports.now(),
            level=self.level,
            level_since=self._level_since,
            why=record.because if record else (),
            mode=self._degradation.mode,
            pools=tuple(self._pool_standing(name) for name in order),
            rows=tuple(
                RowStanding(
                    r.row,
                    r.shown,
                    r.since or self._level_since,
                    r.answer.because,
                    share_given_back(r.state, r.row),
                )
                for _, r in sorted(self._rows.items(), reverse=True, key=lambda item: LEVELS.index(item[0]))
            ),
            not_armed=self._degradation.not_armed,
            problems=self._problems,
        )

    def _pool_standing(self, pool: str) -> PoolStanding:
        now = self._ports.now()
        offset = now.timestamp() - monotonic()
        endpoints = tuple(
            EndpointStanding(
                endpoint=record.endpoint,
                up=not record.down if record.looked else None,
                since=datetime.fromtimestamp(record.up_since + offset, tz=now.tzinfo) if record.looked else None,
                detail=record.detail,
                answer_s=record.answer_s,
            )
            for record in self._records.pools[pool].values()
        )
        weight = None if pool == GATEWAY_POOL or not self._ports.levers else self._plan.weights.get(pool, 0)
        verdict = self._verdicts.get(pool, Verdict(pool, Band.UNKNOWN, ()))
        return PoolStanding(pool, self._models.get(pool, ""), verdict, endpoints, weight)

    def _time_phases(self, receipt: Receipt) -> None:
        seconds = self._ports.metrics.switch_seconds
        moments = (
            ("decided", receipt.decided_at),
            ("acted", receipt.times[ReceiptState.APPLIED]),
            ("verified", receipt.times[ReceiptState.VERIFIED]),
        )
        for phase, at in moments:
            seconds.labels(self._service, receipt.level, phase).observe((at - receipt.detected_at).total_seconds())

    def _export(self) -> None:
        metrics = self._ports.metrics
        for level in LEVELS:
            metrics.level.labels(self._service, level).set(level is self.level)
        for row_level, row in self._rows.items():
            metrics.row_objective.labels(self._service, row_level).set(row.row.within.total_seconds())
            for phase in Phase:
                metrics.row_phase.labels(self._service, row_level, phase).set(phase is row.state.phase)
        for name, verdict in self._verdicts.items():
            for band in Band:
                metrics.verdict.labels(self._service, name, band).set(band is verdict.band)
            for evidence in verdict.evidence:
                if evidence.value is not None:
                    metrics.signal.labels(self._service, name, evidence.signal).set(evidence.value)
                else:
                    metrics.signal.remove(self._service, name, evidence.signal)


def primary_is_well(evidence: Mapping[str, Evidence]) -> bool:
    """Tell whether the primary may be given traffic: positive evidence only, no data is not enough.

    Latency and errors count where they are known; a pool without traffic has none, and the steps of the release will
    tell.
    """
    availability = evidence.get("availability")
    if availability is None or availability.band is not Band.OK:
        return False
    return all(seen is None or seen.band is not Band.BREACH for seen in map(evidence.get, _FELT_BY_USERS))
