"""Joining the parts: the only module that names concrete drivers, and the one place where a long function is right."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import aiohttp
import structlog

from controlplane.chaos.alertmanager import Alertmanager
from controlplane.chaos.drill import Drill, DrillPhase, Outcome, RowTimes
from controlplane.chaos.experiment import Experiment, Walk
from controlplane.chaos.fencing import FencedFaults
from controlplane.chaos.runner import ChaosToolkit
from controlplane.clock import utcnow
from controlplane.degradation.action import Prewarm
from controlplane.degradation.actuator import Receipt, ReceiptState
from controlplane.degradation.canary import Health, health
from controlplane.degradation.fencing import FencedActuator, FencedHand
from controlplane.degradation.gate import PoolFacts
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import LEVELS, Level, Mode, alerts_of
from controlplane.fleet.model import CONTROLPLANE_POOL, PRIMARY, Endpoint
from controlplane.flows import carry, people, switch
from controlplane.flows.decide import DecidePorts, Decider
from controlplane.flows.drill import DrillPorts
from controlplane.flows.drill import Order as WalkOrder
from controlplane.flows.lever import Decision, Levers
from controlplane.flows.observe import ObservePorts, Observer
from controlplane.flows.people import PeoplePorts, TellPorts
from controlplane.flows.publish import publish
from controlplane.flows.records import Patience
from controlplane.flows.recover import RecoverPorts
from controlplane.flows.rollout import RolloutPorts
from controlplane.flows.standing import Standing, stand
from controlplane.flows.switch import Order, SwitchPorts
from controlplane.incidents.cause import hints
from controlplane.incidents.clues import ClueBook
from controlplane.lint.drift import origin_of
from controlplane.policy.load import Loaded
from controlplane.probes.fetch import Pages
from controlplane.probes.http import GatewayCounts
from controlplane.probes.probe import Look, Probe
from controlplane.probes.wire import Wire
from controlplane.render.artefacts import dashboard_of, described, render
from controlplane.render.reports.drill import Report, html_report, markdown_report
from controlplane.runtime.alerts import FiringAlerts
from controlplane.runtime.books import Books, books
from controlplane.runtime.charge import Charge
from controlplane.runtime.drilling import DrillingParts, join
from controlplane.runtime.drills import SCORED_DRILLS, DrillDesk
from controlplane.runtime.election import leadership_of
from controlplane.runtime.experiments import find_experiment
from controlplane.runtime.facts import ClockWatch, FactPorts, Judged
from controlplane.runtime.grounds import counted_by, fault_driver, inventory_of, reaper_of
from controlplane.runtime.hearing import Hearing
from controlplane.runtime.histories import Histories, of_drill, signals_kept
from controlplane.runtime.intake import AlertDesk
from controlplane.runtime.leader import Leadership
from controlplane.runtime.learnt import Learnt, answering_pool
from controlplane.runtime.levers import gateway_of, hands_of
from controlplane.runtime.library import Library
from controlplane.runtime.looking import Looking, asked_of
from controlplane.runtime.prewarming import Prewarmer
from controlplane.runtime.recorder import Recorder
from controlplane.runtime.rollouts import RolloutDesk
from controlplane.runtime.scheduler import Background
from controlplane.runtime.triage import TriageDesk, fault_began
from controlplane.runtime.triage import join as join_triage
from controlplane.runtime.versions import Versions
from controlplane.settings import ServeSettings
from controlplane.slo.verdict import Verdict
from controlplane.store.alerts import StoredAlerts
from controlplane.store.database import Database
from controlplane.store.leader import StoredTerms
from controlplane.telemetry import Metrics

HINTS_SHOWN = 3
"""How many likely causes an incident's timeline begins with."""
EVIDENCE_DRILLS = 20
"""How many of the last drills the runbooks show."""
EVIDENCE_INCIDENTS = 50
"""How many of the last incidents they look at; those that drills caused among them."""
AWAY = (Phase.ENGAGING, Phase.ENGAGED, Phase.RELEASING)
"""Phases of a row in which the lever is its own."""

log = structlog.get_logger("wiring")


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane, joined and not yet started."""

    loaded: Loaded
    books: Books
    observer: Observer
    decider: Decider
    people: PeoplePorts
    recorder: Recorder
    histories: Histories
    library: Library
    """The runbooks, as people read them."""
    wire: Wire
    probes: tuple[Probe, ...]
    recover: RecoverPorts
    leadership: Leadership
    charge: Charge
    hearing: Hearing
    rollouts: RolloutDesk | None
    """None without a gateway."""
    drill: DrillPorts
    desk: DrillDesk
    """Where drills are asked for and scheduled."""
    clock: ClockWatch
    report: Callable[[Drill], Awaitable[Report]]
    """Everything the report of a drill is made of."""
    publish: Callable[[], Awaitable[None]]
    """Renders everything anew, with the evidence there is, and writes what changed."""
    standing: Callable[[], Standing]
    """How the service stands, with its error budgets and what is usual."""
    prewarm: Callable[[], Awaitable[None]]
    """Warms up the pools whose time has come; called every minute."""
    alerts: AlertDesk
    """Takes alerts in."""
    changed: Callable[[], None]
    """Tells every open page that something is not as it was."""
    triage: TriageDesk
    """Makes incidents of them."""
    hear: Callable[[], Awaitable[None]]
    """Asks which alerts fire; called every few seconds."""
    learn: Callable[[], None]
    """Takes the newest verdicts into clues and baselines; called every few seconds."""
    keep: Callable[[], None]
    """Writes down what was learnt."""


def build(
    loaded: Loaded,
    settings: ServeSettings,
    url: str,
    token: str,
    session: aiohttp.ClientSession,
    database: Database,
    background: Background,
    metrics: Metrics,
    changed: Callable[[], None],
) -> Plane:
    """Join every part of the control plane for one policy page.

    Args:
        loaded: the policy.
        settings: how this process is run.
        url: where this server answers, for Chaos Toolkit's way back.
        token: the operator's token, likewise.
        session: the HTTP connections of the levers.
        database: the opened store.
        background: where tasks belong.
        metrics: the control plane's own metrics.
        changed: called whenever what the console shows has changed.

    Raises:
        UnreachableError: when the gateway's addresses are kept in files that are not there.
    """
    policy = loaded.policy
    leadership = leadership_of(settings, policy.service, database, metrics)
    book = books(database, lambda: leadership.held)
    in_hand = carry.InHand()
    wire = Wire(background.spawn)
    pages = Pages(session)
    clues = ClueBook()
    learnt = Learnt(
        policy.objectives,
        policy.service,
        answering_pool(gateway=policy.fleet.gateway is not None and bool(policy.fleet.gateway.listener)),
        utcnow,
    )
    learnt.load(settings.learnt_file)

    versions = Versions(pages, clues, background.spawn)

    def noticed(look: Look) -> None:
        clues.take(look)
        learnt.take(look)
        versions.noticed(look)

    def learn() -> None:
        clues.judged(observer.verdicts, monotonic())
        clues.forget(endpoint.name for endpoint in observer.targets)
        learnt.judged(observer.verdicts, metrics)

    def standing() -> Standing:
        matrix = decider.standing()
        seen = stand(policy.service, utcnow(), matrix, observer.pools(matrix.plan), observer.problems)
        return learnt.shown(seen)

    inventory = inventory_of(loaded)
    ground = fault_driver(loaded, settings.state_dir, counted_by(metrics))
    driver = FencedFaults(ground, leadership.confirm) if ground else None
    lever = gateway_of(policy.fleet, policy.service, loaded.base, session, asked_of(policy))
    gateway = lever.endpoint if lever else None
    actuator = lever.actuator if lever else None

    def gateway_page() -> str:
        return lever.page() if lever else ""

    counts = GatewayCounts(wire, lever.counts if lever else str, policy.fleet.pools)
    looking = Looking(policy, loaded.base, session, wire, pages, gateway_page, background.spawn, counted_by(metrics))
    inference = looking.inference

    def endpoints(pool: str) -> tuple[Endpoint, ...]:
        return inventory.read().pool(pool)

    async def running_drill() -> str:
        running = await book.drills.running()
        return running.id if running else ""

    def pool_facts(pool: str) -> PoolFacts:
        members = endpoints(pool)
        verdict = next((v for v in observer.verdicts if v.pool == pool), None)
        evidence = {e.signal: e for e in verdict.evidence} if verdict else None
        down = evidence["endpoints_down"].value if evidence and "endpoints_down" in evidence else None
        up = round(len(members) * (1.0 - down)) if down is not None else None
        return PoolFacts(up, evidence, frozenset().union(*(versions.models(e) for e in members)))

    async def resolve(level: Level, why: str) -> None:
        await switch.resolve(book.incidents, utcnow, policy.service, level, why)

    hands = hands_of(
        policy.fleet, policy.service, loaded.base, session, endpoints, policy.degradation.receivers,
        policy.degradation.commands, settings.state_dir / "commands", utcnow,
    )  # fmt: skip
    moving: carry.Levers | None = None
    telling = TellPorts(policy.service, book.instructions, book.incidents, utcnow, hands.page)
    prewarmer = Prewarmer(
        policy.service, policy.degradation.prewarm, FencedHand(hands.by_errand[Prewarm], leadership.confirm),
        learnt.forecast, lambda: leadership.acting, metrics, utcnow, watches=policy.degradation.mode is Mode.OBSERVE,
    )  # fmt: skip
    alertmanager = Alertmanager(session, policy.alertmanager) if policy.alertmanager else None
    heard = (
        metrics.alertmanager_answered_at.labels(policy.service).set_to_current_time if alertmanager else lambda: None
    )
    waited_for = frozenset(name for row in policy.degradation.rows.values() for name in alerts_of(row.when))

    def wake() -> None:
        observer.judge_soon()

    firing = FiringAlerts(alertmanager.firing if alertmanager else None, policy.service, waited_for, wake, heard)
    told = StoredAlerts(database)
    triage = join_triage(policy, book, told, leadership, changed, metrics, utcnow)
    alerts = AlertDesk(told, firing, alertmanager.listing if alertmanager else None, metrics, background.spawn)
    levers: Levers | None = None
    if actuator:
        moving = carry.Levers(
            FencedActuator(actuator, leadership.confirm),
            {kind: FencedHand(hand, leadership.confirm) for kind, hand in hands.by_errand.items()},
        )
        switching = SwitchPorts(
            moving, book.receipts, book.incidents, inference.look, endpoints, utcnow, pool_facts,
            telling.why_not.__setitem__, hands.page, in_hand,
        )  # fmt: skip

        async def engage(decision: Decision) -> Receipt | None:
            drill_id = await running_drill()
            order = Order(
                policy.service, decision.row, decision.before, decision.after, decision.because,
                decision.detected_at, decision.decided_at, drill_id, await fault_began(book.leases, drill_id),
                tuple(hint.text for hint in hints(clues.clues(PRIMARY, monotonic()))[:HINTS_SHOWN]),
                await book.receipts.next_episode(policy.service, decision.row.level),
            )  # fmt: skip
            return await switch.engage(switching, order)

        async def ask(decision: Decision, text: str) -> None:
            level, because = decision.row.level, decision.because
            drill = await running_drill()
            await people.ask(telling, level, because, decision.detected_at, decision.decided_at, text, drill)

        levers = Levers(
            engage, partial(switch.shift, switching), partial(switch.close, switching), resolve, ask,
            partial(switch.undone, switching), hands.page,
        )  # fmt: skip

    decider = Decider(
        policy.service,
        policy.degradation,
        DecidePorts(
            levers, background.spawn, changed, metrics, utcnow,
            tell=partial(people.tell, telling), begun=partial(people.begun, telling),
            acting=lambda: leadership.acting, alerts=lambda: firing.names, ended=partial(people.lapsed, telling),
        ),
    )  # fmt: skip

    last, clock = Judged(), ClockWatch(utcnow)

    def evaluated() -> None:
        last.mark()
        changed()

    recorder = Recorder(utcnow, lambda: firing.names)
    histories = Histories(
        policy.service, signals_kept(policy), book.histories, recorder.points, book.incidents.open_first,
        book.drills.recent, lambda: leadership.acting, utcnow,
    )  # fmt: skip
    library = Library(loaded.base / policy.publish.dir, described(policy), dashboard_of(policy))

    def judged(verdicts: Mapping[str, Verdict]) -> None:
        recorder.judged(verdicts)
        triage.judged(verdicts)
        decider.decide(verdicts)

    patience = {"http" if p.http else "tcp" if p.tcp else "inference": Patience(alive.failures, alive.successes)
                for p in policy.probes if (alive := p.http or p.tcp or p.inference)}  # fmt: skip
    observer = Observer(
        policy.service,
        policy.thresholds,
        ObservePorts(
            inventory, gateway, judged, wire.hold, background.spawn, evaluated, metrics, utcnow, patience,
            {probe.name: probe.every.total_seconds() for probe in looking.probes},
            noticed, counts.ask,
        ),
    )  # fmt: skip

    inventory.follow(session, metrics, background.spawn, observer.inventory_changed)

    def busy() -> str:
        return next((r.row.level.value for r in decider.standing().rows if r.phase in AWAY), "")

    def pool_health(pool: str) -> Health:
        return health(pool_facts(pool).evidence or {})

    rollouts: RolloutDesk | None = None
    if moving:
        rolling = RolloutPorts(
            moving, book.receipts, inference.look, endpoints, pool_facts, pool_health, busy, decider.split_is,
            hands.page, utcnow, in_hand,
        )  # fmt: skip
        rollouts = RolloutDesk(policy.service, rolling, book.receipts, leadership, background.spawn)

    async def write_down() -> None:
        drills = await book.drills.recent(EVIDENCE_DRILLS)
        incidents = tuple(i for i, _ in await book.incidents.recent(policy.service, EVIDENCE_INCIDENTS))
        rendered = render(policy, drills, loaded.path.name, incidents)
        library.rendered(rendered)
        origin = origin_of(loaded.resolved, drills)
        await asyncio.to_thread(publish, rendered, loaded.base / policy.publish.dir, origin, utcnow().date())

    async def published(drill: Drill) -> None:
        metrics.drills.labels(drill.experiment, drill.outcome).inc()
        for phase in DrillPhase:
            took = drill.seconds(phase)
            if took is not None:
                metrics.drill_phase.labels(drill.experiment, phase).set(took)
        if drill.outcome is Outcome.PASSED and drill.ended_at:
            metrics.drill_passed_at.labels(drill.experiment).set(drill.ended_at.timestamp())
        await write_report(drill)
        await write_down()
        changed()

    async def report(drill: Drill) -> Report:
        return Report(
            drill, await book.leases.of_drill(drill.id), await book.drills.events(drill.id),
            await book.drills.recent(SCORED_DRILLS), await histories.of(of_drill(drill)), policy.thresholds,
            histories.signals,
        )  # fmt: skip

    async def write_report(drill: Drill) -> None:
        made = await report(drill)
        journal = Path(drill.journal)
        pages = {
            journal.with_suffix(".md").name: markdown_report(made),
            journal.with_suffix(".html").name: html_report(made),
        }
        await asyncio.to_thread(publish, pages, journal.parent)

    async def engagement(row: str, after: datetime) -> Receipt | None:
        receipts = await book.receipts.recent(policy.service, 50)
        mine = [r for r in receipts if r.level == row and r.decided_at >= after]
        return mine[-1] if mine else None

    async def row_times(row: str, after: datetime) -> RowTimes | None:
        receipt = await engagement(row, after)
        if receipt is None:
            return None
        times = receipt.times
        return RowTimes(
            receipt.detected_at, receipt.decided_at, times.get(ReceiptState.APPLIED), times.get(ReceiptState.VERIFIED)
        )

    async def recovered(row: str, after: datetime) -> datetime | None:
        receipt = await engagement(row, after)
        return receipt.times.get(ReceiptState.REVERTED) if receipt else None

    def objective(row: str) -> timedelta | None:
        armed = policy.degradation.rows.get(Level(row)) if row in LEVELS else None
        return armed.within if armed else None

    chaos = ChaosToolkit(url, token, endpoints, settings.pinned_file if settings.secure else None)

    async def walk(order: WalkOrder) -> Walk:
        return await chaos.walk(order.experiment, order.drill_id, order.journal, order.limit_s, order.note)

    async def answers(endpoint: Endpoint) -> bool:
        return (await inference.look(endpoint)).ok

    def breakable(pool: str) -> tuple[Endpoint, ...]:
        return (Endpoint(pool, pool, url),) if pool == CONTROLPLANE_POOL else endpoints(pool)

    clock_off_s = StoredTerms(database).clock_off_s
    facts = FactPorts(
        policy, standing, learnt.budgets, lambda: last.at, leadership.still_acting, book.halts, book.leases,
        book.incidents, running_drill, answers, breakable, clock_off_s, utcnow, clock,
    )  # fmt: skip

    def experiment(name: str) -> tuple[Experiment, Path]:
        sizes = {pool: len(endpoints(pool)) for pool in policy.fleet.pools}
        return find_experiment(settings.experiments_dir, name, sizes)

    drilling, desk = join(
        DrillingParts(
            policy, book.drills, book.drills, book.drills, book.leases, book.halts, driver, facts, walk, experiment,
            breakable, lambda: len(inventory.read().endpoints), lambda: learnt.counted, row_times, recovered, objective,
            published, alertmanager, settings.journals, background.spawn, leadership.still_acting,
            lambda: leadership.acting, changed, metrics, utcnow,
        )
    )  # fmt: skip
    recovering = RecoverPorts(
        policy.service, book.receipts, book.leases, book.drills, moving, driver, utcnow,
        rows=policy.degradation.rows,
        hands_off=policy.degradation.mode is Mode.OBSERVE,
        in_hand=in_hand,
        resolve=resolve,
        moved=decider.split_is,
        reaper=reaper_of(loaded, counted_by(metrics)),
        walked=drilling.walked,
    )  # fmt: skip
    hearing = Hearing(policy.service, book.instructions, decider, lambda: leadership.acting, utcnow)
    charge = Charge(policy.service, leadership, book, decider, hearing, recovering)
    return Plane(
        loaded, book, observer, decider,
        PeoplePorts(telling, decider.refusal, hearing.take, decider.drop, decider.held), recorder,
        histories, library, wire,
        looking.probes, recovering, leadership, charge, hearing, rollouts, drilling, desk, clock, report, write_down,
        standing, prewarmer.tick, alerts, changed, triage, firing.ask, learn,
        partial(learnt.save, settings.learnt_file),
    )  # fmt: skip
