"""Joining the parts: the only module that names concrete drivers, and the one place where a long function is right."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic

import aiohttp
import yaml

from controlplane.chaos.drill import Drill, DrillPhase, Outcome, RowTimes
from controlplane.chaos.experiment import Experiment
from controlplane.chaos.experiment import read as read_experiment
from controlplane.chaos.fault import FaultDriver
from controlplane.chaos.runner import ChaosToolkit
from controlplane.chaos.safety import GateFacts
from controlplane.chaos.substrates.process import ProcessNodes
from controlplane.clock import utcnow
from controlplane.degradation.actuator import Actuator, Receipt, ReceiptState, RoutePlan
from controlplane.degradation.envoy import EnvoyActuator
from controlplane.degradation.matrix import LEVELS, Level, Mode
from controlplane.errors import ExperimentError, UsageError
from controlplane.fleet.files import FileInventory, resolve_address
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY, Endpoint, Inventory
from controlplane.flows import people, switch
from controlplane.flows.decide import DecidePorts, Decider
from controlplane.flows.drill import DrillPorts
from controlplane.flows.lever import Decision, Levers
from controlplane.flows.observe import ObservePorts, Observer
from controlplane.flows.people import PeoplePorts, TellPorts
from controlplane.flows.publish import publish
from controlplane.flows.records import Patience
from controlplane.flows.recover import RecoverPorts
from controlplane.flows.standing import Standing, stand
from controlplane.flows.switch import Order, SwitchPorts
from controlplane.incidents.cause import hints
from controlplane.incidents.clues import ClueBook
from controlplane.policy.load import Loaded
from controlplane.probes.events import EventsProbe
from controlplane.probes.fetch import Pages
from controlplane.probes.gpu import GpuProbe
from controlplane.probes.host import HostProbe
from controlplane.probes.http import HttpProbe, InferenceProbe, MetricsProbe
from controlplane.probes.logs import LogsProbe
from controlplane.probes.probe import InferenceSpec, Look, Probe, ProbeSpec
from controlplane.probes.promql import PromqlProbe
from controlplane.probes.wire import Wire
from controlplane.render.artefacts import render
from controlplane.runtime.learnt import Learnt, answering_pool
from controlplane.runtime.recorder import Recorder
from controlplane.runtime.scheduler import Background
from controlplane.runtime.versions import Versions
from controlplane.settings import ServeSettings
from controlplane.signals.engines import engine_named
from controlplane.slo.verdict import Verdict
from controlplane.store.database import Database
from controlplane.store.drills import StoredDrills, StoredLeases
from controlplane.store.incidents import StoredIncidents
from controlplane.store.instructions import StoredInstructions
from controlplane.store.receipts import StoredReceipts
from controlplane.telemetry import Metrics

ENVOY_PAGE = "/stats/prometheus?filter=http.*downstream_rq"
"""What users got; the whole page is twenty times as large."""
HINTS_SHOWN = 3
"""How many likely causes an incident's timeline begins with."""
EVIDENCE_DRILLS = 20
"""How many of the last drills the runbooks show."""


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that is stored."""

    receipts: StoredReceipts
    incidents: StoredIncidents
    drills: StoredDrills
    leases: StoredLeases
    instructions: StoredInstructions


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane, joined and not yet started."""

    loaded: Loaded
    books: Books
    observer: Observer
    decider: Decider
    people: PeoplePorts
    recorder: Recorder
    wire: Wire
    probes: tuple[Probe, ...]
    recover: RecoverPorts
    drill: DrillPorts
    publish: Callable[[], Awaitable[None]]
    """Renders everything anew, with the evidence there is, and writes what changed."""
    standing: Callable[[], Standing]
    """How the service stands, with its error budgets and what is usual."""
    learn: Callable[[], None]
    """Takes the newest verdicts into clues and baselines; called every few seconds."""
    keep: Callable[[], None]
    """Writes down what was learnt."""


def books(database: Database) -> Books:
    """Open every book of a database."""
    return Books(
        StoredReceipts(database), StoredIncidents(database), StoredDrills(database), StoredLeases(database),
        StoredInstructions(database),
    )  # fmt: skip


def inventory_of(loaded: Loaded) -> Inventory:
    """Return the endpoints of a policy page as they are listed now."""
    return FileInventory(loaded.policy.fleet, loaded.base).read()


def fault_driver(loaded: Loaded) -> FaultDriver | None:
    """Return the driver for where the fleet runs; None when the page does not say."""
    substrate = loaded.policy.fleet.substrate
    return ProcessNodes(loaded.base / substrate.process.nodes_dir) if substrate else None


def find_experiment(directory: Path, name: str) -> tuple[Experiment, Path]:
    """Find and check an experiment.

    Raises:
        UsageError: when there is none of that name.
        ExperimentError: when it may not be run as it is written.
    """
    path = directory / f"{name}.yaml"
    known = sorted(p.stem for p in directory.glob("*.yaml"))
    if name not in known:
        raise UsageError(
            f"no experiment `{name}` in {directory}", f"there are: {', '.join(known) or 'none'}",
            "name one of them, or the directory with --experiments",
        )  # fmt: skip
    try:
        page = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"cannot read {path}", str(error), "mend the file") from error
    experiment, problems = read_experiment(name, page)
    if experiment is None:
        first, *more = problems
        also = f" (and {len(more)} more)" if more else ""
        raise ExperimentError(f"{first.where}: {first.what}{also}", first.why, first.fix)
    return experiment, path


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
    book = books(database)
    wire = Wire(background.spawn)
    pages = Pages(session)
    clues = ClueBook()
    learnt = Learnt(policy.objectives, policy.service, answering_pool(gateway=policy.fleet.gateway is not None), utcnow)
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

    inventory = FileInventory(policy.fleet, loaded.base)
    driver = fault_driver(loaded)
    gateway: Endpoint | None = None
    actuator: Actuator | None = None
    if policy.fleet.gateway:
        envoy = policy.fleet.gateway.envoy
        admin = partial(resolve_address, envoy.admin, loaded.base)
        admin()  # An address that is not there is said at the start, not in the first emergency.
        listener = resolve_address(envoy.listener, loaded.base)
        gateway = Endpoint("gateway", GATEWAY_POOL, listener, model=policy.fleet.pools[PRIMARY].model)
        actuator = EnvoyActuator(session, loaded.base / envoy.xds_dir, admin, listener, gateway.model)

    def gateway_page() -> str:
        gateway_spec = policy.fleet.gateway
        return f"{resolve_address(gateway_spec.envoy.admin, loaded.base)}{ENVOY_PAGE}" if gateway_spec else ""

    inference = InferenceProbe(wire, next((p.inference for p in policy.probes if p.inference), InferenceSpec()))

    def probe(spec: ProbeSpec) -> Probe:
        if spec.http:
            return HttpProbe(wire, spec.http)
        if spec.metrics:
            return MetricsProbe(wire, spec.metrics, engine_named(policy.fleet.engine), gateway_page)
        if spec.gpu:
            return GpuProbe(spec.gpu, pages)
        if spec.logs:
            return LogsProbe(spec.logs, loaded.base)
        if spec.promql:
            return PromqlProbe(spec.promql, pages)
        if spec.events:
            events = EventsProbe(session, spec.events)
            background.spawn(events.follow())
            return events
        return HostProbe(spec.host, pages) if spec.host else inference

    def endpoints(pool: str) -> tuple[Endpoint, ...]:
        return inventory.read().pool(pool)

    async def running_drill() -> str:
        recent = await book.drills.recent(1)
        return recent[0].id if recent and recent[0].outcome is Outcome.RUNNING else ""

    telling = TellPorts(policy.service, book.instructions, book.incidents, utcnow)
    levers: Levers | None = None
    if actuator:
        switching = SwitchPorts(actuator, book.receipts, book.incidents, inference.look, endpoints, utcnow)

        async def engage(decision: Decision) -> Receipt | None:
            order = Order(
                policy.service, decision.row, decision.before, decision.after, decision.because,
                decision.detected_at, decision.decided_at, await running_drill(),
                tuple(hint.text for hint in hints(clues.clues(PRIMARY, monotonic()))[:HINTS_SHOWN]),
            )  # fmt: skip
            return await switch.engage(switching, order)

        async def shift(receipt: Receipt, plan: RoutePlan, what: str) -> bool:
            return await switch.shift(switching, receipt, plan, what)

        async def close(receipt: Receipt) -> Receipt:
            return await switch.close(switching, receipt)

        async def resolve(level: Level, why: str) -> None:
            await switch.resolve(switching, policy.service, level, why)

        async def ask(decision: Decision, text: str) -> None:
            level, because = decision.row.level, decision.because
            await people.ask(telling, level, because, decision.detected_at, decision.decided_at, text)

        levers = Levers(engage, shift, close, resolve, ask)

    decider = Decider(
        policy.service,
        policy.degradation,
        DecidePorts(
            levers, background.spawn, changed, metrics, utcnow,
            tell=partial(people.tell, telling), begun=partial(people.begun, telling),
            ended=partial(people.lapsed, telling),
        ),
    )  # fmt: skip

    async def verify(plan: RoutePlan) -> str:
        proof = await switch.verify(actuator, plan) if actuator else switch.Proof(ok=False, detail="")
        return proof.detail if proof.ok else ""

    recorder = Recorder(utcnow)

    def judged(verdicts: Mapping[str, Verdict]) -> None:
        recorder.judged(verdicts)
        decider.decide(verdicts)

    alive = next((p.http or p.inference for p in policy.probes if p.http or p.inference), None)
    patience = Patience(alive.failures, alive.successes) if alive else Patience()
    observer = Observer(
        policy.service,
        policy.thresholds,
        ObservePorts(
            inventory, gateway, judged, wire.hold, background.spawn, changed, metrics, utcnow, patience, noticed
        ),
    )

    async def write_down() -> None:
        drills = await book.drills.recent(EVIDENCE_DRILLS)
        rendered = render(policy, drills, loaded.path.name)
        await asyncio.to_thread(publish, rendered, loaded.base / policy.publish.dir)

    async def published(drill: Drill) -> None:
        metrics.drills.labels(drill.experiment, drill.outcome).inc()
        for phase in DrillPhase:
            took = drill.seconds(phase)
            if took is not None:
                metrics.drill_phase.labels(drill.experiment, phase).set(took)
        if drill.outcome is Outcome.PASSED and drill.ended_at:
            metrics.drill_passed_at.labels(drill.experiment).set(drill.ended_at.timestamp())
        await write_down()
        changed()

    async def facts(row: str) -> GateFacts:
        """Ask the very pool that the drilled row would send everything to."""
        looks = await asyncio.gather(
            *(inference.look(e) for e in endpoints(policy.degradation.rows[Level(row)].target))
        )
        return GateFacts(
            open_incidents=len(await book.incidents.open_incidents(policy.service)),
            standby_answers=any(look.ok for look in looks) if looks else None,
            running_drill=await running_drill(),
            level=decider.level,
            leases_open=len(await book.leases.open_leases()),
            now=utcnow(),
        )

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

    chaos = ChaosToolkit(url, token)
    drilling = DrillPorts(
        drills=book.drills,
        leases=book.leases,
        driver=driver,
        walk=chaos.walk,
        experiment=lambda name: find_experiment(settings.experiments_dir, name),
        endpoints=endpoints,
        facts=facts,
        row_times=row_times,
        recovered=recovered,
        objective=objective,
        published=published,
        journals=settings.journals,
        now=utcnow,
    )
    recovering = RecoverPorts(
        policy.service, book.receipts, book.leases, book.drills, actuator, driver, verify, utcnow,
        rows=policy.degradation.rows,
        hands_off=policy.degradation.mode is Mode.OBSERVE,
    )  # fmt: skip
    return Plane(
        loaded, book, observer, decider,
        PeoplePorts(telling, decider.refusal, decider.instruct, decider.drop, decider.held), recorder, wire,
        tuple(probe(spec) for spec in policy.probes), recovering, drilling, write_down, standing, learn,
        partial(learnt.save, settings.learnt_file),
    )  # fmt: skip
