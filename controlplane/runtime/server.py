"""`controlplane serve`: one process that watches, decides, drills, answers and stops cleanly."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import TypedDict

import structlog
import uvicorn
import uvloop

import controlplane
from controlplane.chaos.fault import FaultKind
from controlplane.clock import utcnow
from controlplane.degradation.actuator import Receipt
from controlplane.errors import ControlplaneError
from controlplane.flows import faults, people, recover
from controlplane.flows.observe import Observer
from controlplane.flows.rollout import Refused
from controlplane.policy.load import Loaded
from controlplane.render.reports.incident import IncidentReport
from controlplane.render.wording import page_name
from controlplane.runtime.collector import Collector
from controlplane.runtime.console import console_ports
from controlplane.runtime.doors import Doors, doors
from controlplane.runtime.drills import SCHEDULE_EVERY
from controlplane.runtime.histories import KEEP_HISTORY_EVERY, of_incident
from controlplane.runtime.identity import oidc_ports, settings_of
from controlplane.runtime.intake import RECONCILE_EVERY
from controlplane.runtime.outbound import outbound_session
from controlplane.runtime.prewarming import PREWARM_EVERY
from controlplane.runtime.rollouts import RolloutDesk
from controlplane.runtime.scheduler import Background, Pace, Timetable
from controlplane.runtime.state_dir import held, operator_token, publish_address, webhook_token
from controlplane.runtime.triage import COUNT_EVERY, TRIAGE_EVERY, handling
from controlplane.runtime.wiring import Plane, build
from controlplane.security.outbound import OutboundSpec
from controlplane.settings import ServeSettings
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.telemetry import Metrics, configure_logging
from controlplane.tls import check_files
from controlplane.web.api.levers import LeverPorts
from controlplane.web.api.rollouts import StartRollout
from controlplane.web.app import WebPorts, build_app
from controlplane.web.changes import Changes
from controlplane.web.incidents import IncidentPorts
from controlplane.web.intake import PATH as WEBHOOK_PATH
from controlplane.web.intake import DoorPorts, IntakeDoor, WebhookCheck
from controlplane.web.lane import Lane, LaneProtocol
from controlplane.web.page import IncidentView, Overview, Role, ScheduledDrill
from controlplane.web.runbooks import RunbookPorts

EVALUATE_EVERY = timedelta(milliseconds=500)
ASK_GATEWAY_EVERY_S = 0.2
"""A silent pool is known after one time-out of 600 ms: by then the gateway has been asked at least twice since."""
RECOVER_EVERY = timedelta(seconds=2)
REAP_EVERY = timedelta(seconds=10)
"""How often every replica looks for overdue faults that the substrate itself keeps a record of."""
HEAR_EVERY = timedelta(seconds=2)
LEARN_EVERY = timedelta(seconds=5)
KEEP_EVERY = timedelta(minutes=5)
LAG_EVERY_S = 0.25
SHOWN = 12
"""How many of the newest things the console's front page shows."""


class RolloutDoors(TypedDict):
    """What `WebPorts` asks of rollouts."""

    start_rollout: StartRollout
    abort_rollout: Callable[[str], Awaitable[Receipt | Refused]]
    newest_rollout: Callable[[], Awaitable[Receipt | None]]


log = structlog.get_logger("server")


def serve(loaded: Loaded, settings: ServeSettings) -> int:
    """Run a control plane until it is told to stop.

    Returns:
        The process's exit status.

    Raises:
        ControlplaneError: when it cannot start, with the way out.
    """
    configure_logging()
    settings.check()
    if settings.oidc:
        settings_of(settings.oidc)
    if settings.tls_cert and settings.tls_key:
        check_files(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    with (
        held(settings),
        listening(settings) as listener,
        contextlib.closing(open_database(settings.database_url or sqlite_url(settings.database))) as database,
    ):
        return uvloop.run(_serve(loaded, settings, listener, database))


@contextlib.contextmanager
def listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """Bind the address first of all, so that a taken port is found out before anything is touched.

    Raises:
        ControlplaneError: when the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise ControlplaneError(
                f"cannot listen on {settings.host}:{settings.port}", str(error),
                "stop what listens there, or choose another port with --port (0 takes a free one)",
            ) from error  # fmt: skip
        listener.listen(128)
        yield listener


class _Server(uvicorn.Server):
    """Uvicorn without hands on the signals: they are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _reached_at(host: str) -> str:
    """Return where this machine itself reaches a listening address: that may be every address there is."""
    near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - to tell it from the others
    return f"[{near}]" if ":" in near and not near.startswith("[") else near


def _web_config(app: IntakeDoor, settings: ServeSettings) -> uvicorn.Config:
    """Say how the application is served: no access log (addresses may hold what is nobody's business), TLS if asked."""
    return uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, ws="none",
        server_header=False, http=partial(LaneProtocol, lane=Lane(app)),  # type: ignore[arg-type]
        proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
        ssl_ca_certs=str(settings.tls_client_ca) if settings.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    )  # fmt: skip


async def _serve(loaded: Loaded, settings: ServeSettings, listener: socket.socket, database: Database) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    url = f"{'https' if settings.secure else 'http'}://{_reached_at(settings.host)}:{listener.getsockname()[1]}"
    token, metrics, changes = operator_token(settings), Metrics(), Changes()
    background, timetable = Background(), Timetable()
    metrics.info.labels(loaded.policy.service, controlplane.__version__, url).set(1)
    for result in ("ok", "failed"):
        metrics.store_seconds.labels(result)
    database.took = lambda result, seconds: metrics.store_seconds.labels(result).observe(seconds)
    async with (
        outbound_session(loaded.policy.outbound, loaded.policy.fleet_hosts) as session,
        outbound_session(OutboundSpec(), ()) as to_provider,
    ):
        plane = build(loaded, settings, url, token, session, database, background, metrics, changes.tell)
        await plane.leadership.turn()
        background.spawn(plane.leadership.keep())
        await plane.charge.tick()
        background.spawn(plane.charge.keep())
        background.spawn(plane.hearing.listen())
        await plane.publish()
        await plane.alerts.remember()
        background.spawn(plane.alerts.write())
        opened = doors(database, settings, token, lambda status: metrics.refusals.labels(status).inc())
        ports = _web_ports(plane, metrics, changes, opened, settings)
        app = build_app(
            replace(
                ports,
                oidc=oidc_ports(settings.oidc, settings.public_url or url, to_provider) if settings.oidc else None,
            )
        )
        allowed = WebhookCheck(webhook_token(settings), opened.keeper.of_token)
        door = IntakeDoor(app, DoorPorts(plane.alerts.take, plane.alerts.put, allowed, metrics.webhooks_refused))
        server = _Server(_web_config(door, settings))
        web = asyncio.create_task(server.serve(sockets=[listener]))
        background.spawn(_measure_lag(metrics))
        paces = _schedule(plane, timetable, background, metrics)
        timetable.every(RECONCILE_EVERY, plane.alerts.reconcile, "reconcile")
        if settings.database_url:
            background.spawn(plane.alerts.follow())
        publish_address(settings, url)
        log.info("webhooks are taken", url=url + WEBHOOK_PATH, token_file=str(settings.webhook_token_file))
        log.info("serving", url=url, service=loaded.policy.service, version=controlplane.__version__)
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait((waiting, web), return_when=asyncio.FIRST_COMPLETED)
        timetable.stop()
        for pace in paces:
            pace.stop()
        changes.close()
        server.should_exit = True
        waiting.cancel()
        plane.wire.close()
        await background.stop()
        await plane.leadership.resign()
        await web
        plane.keep()
    log.info("stopped")
    return 0


async def _reap(plane: Plane) -> None:
    """End overdue faults by the substrate's own record; a replica that is not in charge does so, too."""
    await recover.reap(plane.recover)


async def _ask_gateway(observer: Observer) -> None:
    """Read the gateway's counters, for ever; a pause between two readings, however late the first one came."""
    while True:
        observer.ask_gateway()
        await asyncio.sleep(ASK_GATEWAY_EVERY_S)


def _schedule(plane: Plane, timetable: Timetable, background: Background, metrics: Metrics) -> list[Pace]:
    """Put everything that happens by the clock on the timetable; returns what paces the looks, begun."""

    async def evaluate() -> None:
        plane.observer.follow_inventory()
        plane.observer.evaluate()

    timetable.every(EVALUATE_EVERY, evaluate, "evaluate")
    plane.observer.follow_inventory()
    observer = plane.observer
    background.spawn(_ask_gateway(observer))
    paces = [
        Pace(probe.name, probe.every, lambda: observer.targets, partial(observer.look, probe), spec.given.jitter)
        for probe, spec in zip(plane.probes, plane.loaded.policy.probes, strict=True)
    ]
    for pace in paces:
        pace.start()

    async def recover_tick() -> None:
        plane.clock.tick()
        await plane.charge.tick()
        leases = await plane.books.leases.open_leases()
        for kind in FaultKind:
            metrics.faults_active.labels(kind).set(sum(1 for lease in leases if lease.kind is kind))
        service = plane.loaded.policy.service
        metrics.incidents_open.labels(service).set(len(await plane.books.incidents.open_incidents(service)))
        metrics.store_answered_at.labels(service).set_to_current_time()

    timetable.every(RECOVER_EVERY, recover_tick, "recover")
    timetable.every(REAP_EVERY, partial(_reap, plane), "reap")

    async def learn() -> None:
        plane.learn()

    async def keep() -> None:
        await asyncio.to_thread(plane.keep)

    timetable.every(LEARN_EVERY, learn, "learn")
    timetable.every(TRIAGE_EVERY, plane.triage.tick, "triage")
    timetable.every(COUNT_EVERY, plane.triage.count, "count incidents")
    timetable.every(HEAR_EVERY, plane.hear, "hear")
    timetable.every(KEEP_EVERY, keep, "keep")
    timetable.every(KEEP_HISTORY_EVERY, plane.histories.tick, "histories")
    timetable.every(PREWARM_EVERY, plane.prewarm, "prewarm")
    collector = Collector(lambda: plane.observer.targets)

    async def collect() -> None:
        collector.tick()

    timetable.every(RECOVER_EVERY, collect, "collect")

    async def due() -> None:
        background.spawn(plane.desk.keep_schedule())

    timetable.every(SCHEDULE_EVERY, due, "schedule")
    for name, plan in plane.loaded.policy.drills.items():
        timetable.at(plan.at, due, f"drills {name}")
    timetable.start()
    return paces


async def _measure_lag(metrics: Metrics) -> None:
    while True:
        before = monotonic()
        await asyncio.sleep(LAG_EVERY_S)
        metrics.loop_lag.set(max(0.0, monotonic() - before - LAG_EVERY_S))


def _web_ports(plane: Plane, metrics: Metrics, changes: Changes, opened: Doors, settings: ServeSettings) -> WebPorts:
    books, service = plane.books, plane.loaded.policy.service

    async def incidents(limit: int) -> tuple[IncidentView, ...]:
        return tuple(
            IncidentView(incident, entries) for incident, entries in await books.incidents.recent(service, limit)
        )

    async def overview() -> Overview:
        return Overview(
            standing=plane.standing(),
            incidents=await incidents(SHOWN),
            drills=await books.drills.recent(SHOWN),
            receipts=await books.receipts.recent(service, SHOWN),
            leases=await books.leases.open_leases(),
            halt=await books.halts.current(),
            next_drill=_next_drill(plane, utcnow()),
            now=utcnow(),
            version=controlplane.__version__,
            role=Role(plane.leadership.role, plane.leadership.leader),
        )

    def not_ready() -> tuple[str, ...]:
        standing = plane.standing()
        unseen = [e.endpoint.name for pool in standing.pools for e in pool.endpoints if e.up is None]
        missing = (*standing.problems, *(f"{name} has not been looked at yet" for name in unseen))
        missing = missing if standing.pools else ("no inventory has been read yet",)
        metrics.ready.set(not missing)
        return missing

    return WebPorts(
        standing=plane.standing,
        overview=overview,
        receipts=lambda limit: books.receipts.recent(service, limit),
        drills=books.drills.recent,
        drill=books.drills.get,
        leases=books.leases.open_leases,
        desk=plane.desk,
        events=books.drills.events,
        report=plane.report,
        incident_pages=_incident_ports(plane, incidents),
        halt=books.halts.current,
        inject=lambda drill, request: faults.inject(plane.drill.faults, drill, request),
        heal_drill=lambda drill_id: faults.heal(plane.drill.faults, drill_id),
        heal_all=lambda: recover.heal_all(plane.recover),
        not_ready=not_ready,
        in_charge=lambda: plane.leadership.acting,
        role=lambda: Role(plane.leadership.role, plane.leadership.leader),
        lever=_lever_ports(plane),
        **_rollout_ports(plane.rollouts),
        alerts=plane.alerts.pages,
        registry=metrics.registry,
        changes=changes,
        guard=opened.guard,
        admin=opened.admin,
        console=console_ports(plane, overview, opened.admin.audit, settings.experiments_dir),
    )


def _incident_ports(plane: Plane, incidents: Callable[[int], Awaitable[tuple[IncidentView, ...]]]) -> IncidentPorts:
    policy, library = plane.loaded.policy, plane.library

    async def report(incident_id: str) -> IncidentReport | None:
        found = await plane.books.incidents.get(incident_id)
        if found is None or found[0].service != policy.service:
            return None
        incident, entries = found
        row = next((r for level, r in policy.degradation.rows.items() if level == incident.level), None)
        return IncidentReport(
            incident, entries, await plane.books.receipts.of_incident(incident),
            await plane.histories.of(of_incident(incident)), row.within if row else None, policy.thresholds,
            policy.objectives, plane.histories.signals, utcnow(), f"/runbooks/{page_name(row)}" if row else "",
        )  # fmt: skip

    books = RunbookPorts(
        library.subjects, library.text, policy.thresholds, library.dashboard, plane.standing, incidents, utcnow,
        controlplane.__version__,
    )  # fmt: skip
    return IncidentPorts(report, books, handling(plane.triage, plane.standing, plane.changed))


def _lever_ports(plane: Plane) -> LeverPorts:
    service = plane.loaded.policy.service
    return LeverPorts(
        instruct=partial(people.instruct, plane.people),
        end=partial(people.end, plane.people),
        instructions=lambda limit: plane.books.instructions.recent(service, limit),
        recording=plane.recorder.points,
        acting=lambda: plane.leadership.acting,
    )


def _rollout_ports(desk: RolloutDesk | None) -> RolloutDoors:
    if desk:
        return {"start_rollout": desk.start, "abort_rollout": desk.abort, "newest_rollout": desk.newest}
    refused = Refused("the fleet has no gateway: nothing can be moved")

    async def no_start(*_: object) -> Refused:
        return refused

    async def no_abort(_: str) -> Refused:
        return refused

    async def none() -> None:
        return None

    return {"start_rollout": no_start, "abort_rollout": no_abort, "newest_rollout": none}


def _next_drill(plane: Plane, now: datetime) -> ScheduledDrill | None:
    coming = [(at, name, plan) for at, name, plan in plane.desk.next_due(now) if plan.experiments]
    return next((ScheduledDrill(name, plan.experiments[0], at) for at, name, plan in coming), None)
