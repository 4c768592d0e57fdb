"""`controlplane serve`: one process that watches, decides, drills, answers and stops cleanly."""

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from time import monotonic

import structlog
import uvicorn
import uvloop

import controlplane
from controlplane.chaos.fault import FaultKind
from controlplane.errors import ControlplaneError
from controlplane.flows import recover
from controlplane.flows.observe import Observer
from controlplane.policy.load import Loaded
from controlplane.runtime.certificates import Renewal
from controlplane.runtime.collector import Collector
from controlplane.runtime.doors import doors
from controlplane.runtime.drills import SCHEDULE_EVERY
from controlplane.runtime.happenings import LOOKED_AT, Seen, follow, seen
from controlplane.runtime.histories import KEEP_HISTORY_EVERY
from controlplane.runtime.identity import oidc_ports, settings_of
from controlplane.runtime.intake import RECONCILE_EVERY
from controlplane.runtime.outbound import outbound_session
from controlplane.runtime.prewarming import PREWARM_EVERY
from controlplane.runtime.scheduler import Background, Pace, Timetable
from controlplane.runtime.state_dir import held, operator_token, publish_address, webhook_token
from controlplane.runtime.triage import COUNT_EVERY, TRIAGE_EVERY
from controlplane.runtime.web import web_ports
from controlplane.runtime.wiring import Plane, build
from controlplane.security.outbound import OutboundSpec
from controlplane.settings import ServeSettings
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.telemetry import Metrics, configure_logging
from controlplane.tls import check_files
from controlplane.web.app import build_app
from controlplane.web.changes import Changes
from controlplane.web.intake import PATH as WEBHOOK_PATH
from controlplane.web.intake import DoorPorts, IntakeDoor, WebhookCheck
from controlplane.web.lane import Lane, LaneProtocol

EVALUATE_EVERY = timedelta(milliseconds=500)
ASK_GATEWAY_EVERY_S = 0.2
"""A silent pool is known after one time-out of 600 ms: by then the gateway has been asked at least twice since."""
RECOVER_EVERY = timedelta(seconds=2)
REAP_EVERY = timedelta(seconds=10)
"""How often every replica looks for overdue faults that the substrate itself keeps a record of."""
HEAR_EVERY = timedelta(seconds=2)
LEARN_EVERY = timedelta(seconds=5)
KEEP_EVERY = timedelta(minutes=5)
RENEW_EVERY = timedelta(seconds=5)
LAG_EVERY_S = 0.25


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
            listener.listen(128)  # Of two that start at once, both may have bound it: this refuses the second one.
        except OSError as error:
            raise ControlplaneError(
                f"cannot listen on {settings.host}:{settings.port}", str(error),
                "stop what listens there, or choose another port with --port (0 takes a free one)",
            ) from error  # fmt: skip
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


def _web_server(door: IntakeDoor, settings: ServeSettings) -> _Server:
    """Say how the application is served: no access log (addresses may hold what is nobody's business), TLS if asked."""
    config = uvicorn.Config(
        door, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, ws="none",
        server_header=False, http=partial(LaneProtocol, lane=Lane(door)),  # type: ignore[arg-type]
        proxy_headers=bool(settings.trusted_proxies), forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
        ssl_ca_certs=str(settings.tls_client_ca) if settings.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    )  # fmt: skip
    config.load()
    return _Server(config)


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
        ports = web_ports(plane, metrics, changes, opened, settings)
        provider = oidc_ports(settings.oidc, settings.public_url or url, to_provider) if settings.oidc else None
        app = build_app(replace(ports, oidc=provider))
        allowed = WebhookCheck(webhook_token(settings), opened.keeper.of_token)
        door = IntakeDoor(app, DoorPorts(plane.alerts.take, plane.alerts.put, allowed, metrics.webhooks_refused))
        server = _web_server(door, settings)
        web = asyncio.create_task(server.serve(sockets=[listener]))
        background.spawn(_measure_lag(metrics))
        background.spawn(follow(changes, partial(_look, plane), asyncio.sleep))
        paces = _schedule(plane, timetable, background, metrics)
        if server.config.ssl:
            timetable.every(RENEW_EVERY, Renewal(settings, server.config.ssl, url).tick, "renew the certificate")
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
    timetable.every(RECONCILE_EVERY, plane.alerts.reconcile, "reconcile")
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


async def _look(plane: Plane) -> Seen:
    """Return how everything stands that listeners are told of."""
    books = plane.books
    incidents = await books.incidents.open_incidents(plane.loaded.policy.service)
    return seen(plane.standing(), await books.drills.recent(LOOKED_AT), incidents, await books.halts.current())


async def _measure_lag(metrics: Metrics) -> None:
    while True:
        before = monotonic()
        await asyncio.sleep(LAG_EVERY_S)
        metrics.loop_lag.set(max(0.0, monotonic() - before - LAG_EVERY_S))
