"""Overviews as they look on a quiet day, in a failover, on an empty store, and with hostile texts; all pure values.

The console's tests draw them, and `scripts/screenshot.py --sample NAME` photographs them.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.degradation.action import SwitchPool, UsePool
from controlplane.degradation.actuator import Receipt, ReceiptState, RoutePlan
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import AllOf, AnyOf, Condition, Level, Mode, ReleasePlan, Row
from controlplane.fleet.model import Endpoint
from controlplane.flows.standing import BudgetStanding, EndpointStanding, PoolStanding, RowStanding, Standing
from controlplane.incidents.incident import Entry, Incident, IncidentState
from controlplane.slo.burn import BudgetWindow, budget
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, judge
from controlplane.web.page import IncidentView, Overview, ScheduledDrill

NOW = datetime(2026, 11, 21, 3, 4, 31, 250_000, tzinfo=UTC)
DRILL_ID = "drill-20261121-030400-node-kill"
HOSTILE = (
    '<script>alert("x")</script>\'"><img src=x onerror=alert(1)> \U0001f4a5 \u202eevil\u202c \u05e9\u05dc\u05d5\u05dd'
)

P0 = Row(
    Level.P0,
    AnyOf(
        (
            Condition("endpoints_down", above=1.0),
            Condition("availability", below=0.5, dwell=timedelta(seconds=2)),
            Condition("error_rate", above=0.05, dwell=timedelta(seconds=3)),
        )
    ),
    (SwitchPool("standby"),),
    timedelta(minutes=5),
    ReleasePlan(),
)
P2 = Row(
    Level.P2,
    AnyOf(
        (
            Condition("kv_cache_utilization", above=0.95, dwell=timedelta(seconds=30)),
            AllOf((Condition("gpu_utilization", band=Band.BREACH), Condition("latency_p99", band=Band.WARN))),
        )
    ),
    (UsePool("base", 0.5),),
    timedelta(hours=1),
    ReleasePlan(),
)


def ago(seconds: float) -> datetime:
    """Return the moment that many seconds before the sample's now."""
    return NOW - timedelta(seconds=seconds)


def endpoint(pool: str, number: int) -> Endpoint:
    """Return one endpoint of a pool."""
    node = f"node-{'abcd'[number % 4]}"
    return Endpoint(f"{pool}-{number}", pool, f"http://127.0.0.1:{41200 + number}", node, "full")


def pool(
    name: str,
    weight: int | None,
    evidence: tuple[Evidence, ...],
    endpoints: tuple[EndpointStanding, ...],
    model: str = "reference-full",
) -> PoolStanding:
    """Return a pool with the verdict its evidence calls for."""
    return PoolStanding(name, model, judge(name, evidence), endpoints, weight)


def up(pool_name: str, number: int, answer_s: float | None = 0.043) -> EndpointStanding:
    """Return an endpoint that is well."""
    return EndpointStanding(endpoint(pool_name, number), up=True, since=ago(93_000), answer_s=answer_s)


def down(pool_name: str, number: int) -> EndpointStanding:
    """Return an endpoint that was just killed."""
    detail = "connection reset while held; reconnect refused (errno 111)"
    return EndpointStanding(endpoint(pool_name, number), up=False, since=ago(31), detail=detail)


def well(engine: str = "engine histograms of 2 endpoints") -> tuple[Evidence, ...]:
    """Return evidence with nothing to worry about."""
    return (
        Evidence("availability", 1.0, Band.OK, 120, source="looks at 2 endpoints"),
        Evidence("endpoints_down", 0.0, Band.OK, 2, source="looks at 2 endpoints"),
        Evidence("latency_p99", 0.412, Band.OK, 1287, 0.4, 0.45, engine, "", 30.0, 0.7, 0.38, 1.3),
        Evidence("inter_token_latency_p99", 0.0213, Band.OK, 41_184, 0.02, 0.025, engine),
        Evidence("error_rate", 0.0, Band.OK, 1287, source="engine counters"),
        Evidence("request_rate", 42.9, Band.OK, 30, source="engine counters"),
        Evidence("queue_depth", 3.0, Band.OK, 30, source="engine gauges", age_s=0.7),
        Evidence("kv_cache_utilization", 0.374, Band.OK, 30, source="engine gauges"),
        Evidence("cpu_utilization", 0.58, Band.OK, 60, source="process counters"),
        Evidence("memory_utilization", 0.741, Band.WARN, 60, source="process gauges", reason="over 70% for 30 s"),
        Evidence("gpu_utilization", None, Band.UNKNOWN, reason="no endpoint exposes DCGM_FI_DEV_GPU_UTIL"),
    )


def gateway(error_rate: float = 0.0, availability: float = 1.0, latency: float = 0.418) -> PoolStanding:
    """Return the gateway as its own pool."""
    band = Band.OK if error_rate < 0.005 else Band.WARN
    evidence = (
        Evidence("availability", availability, Band.OK if availability > 0.99 else Band.WARN, 60, source="completions"),
        Evidence("error_rate", error_rate, band, 1291, source="Envoy's upstream_rq counters"),
        Evidence("latency_p99", latency, Band.OK, 1291, latency * 0.97, latency * 1.09, "Envoy's histograms"),
        Evidence("request_rate", 43.0, Band.OK, 30, source="Envoy's counters"),
    )
    seen = EndpointStanding(
        Endpoint("gateway", "gateway", "http://127.0.0.1:41080"), up=True, since=ago(93_010), answer_s=0.047
    )
    return pool("gateway", None, evidence, (seen,))


def standby_well() -> tuple[Evidence, ...]:
    """Return what a healthy pool of one endpoint shows."""
    return tuple(replace(e, source=e.source.replace("2 endpoints", "1 endpoint")) for e in well()[:8])


def passed_drill() -> Drill:
    """Return last month's drill."""
    start = datetime(2026, 11, 3, 2, 0, 0, tzinfo=UTC)
    after = {
        DrillPhase.FAULT: 1.2,
        DrillPhase.DETECTED: 1.214,
        DrillPhase.DECIDED: 1.216,
        DrillPhase.ACTED: 1.26,
        DrillPhase.VERIFIED: 1.713,
        DrillPhase.HEALED: 21.8,
        DrillPhase.RECOVERED: 118.4,
    }
    return Drill(
        id="drill-20261103-020000-node-kill",
        experiment="node-kill",
        row="P0",
        objective=timedelta(minutes=5),
        requested_by="schedule",
        started_at=start,
        slot="monthly/2026-11-03",
        outcome=Outcome.PASSED,
        ended_at=start + timedelta(seconds=125),
        phases={phase: start + timedelta(seconds=s) for phase, s in after.items()},
        journal="run/drills/drill-20261103-020000-node-kill/journal.json",
    )


def older_drills() -> tuple[Drill, ...]:
    """Return drills that did not pass, for their reasons."""
    failed = replace(
        passed_drill(),
        id="drill-20261006-020000-node-kill",
        started_at=datetime(2026, 10, 6, 2, 0, tzinfo=UTC),
        slot="monthly/2026-10-06",
        outcome=Outcome.FAILED,
        reasons=("the row never restored service: no verified receipt", "no recovered"),
        phases={
            DrillPhase.FAULT: datetime(2026, 10, 6, 2, 0, 1, tzinfo=UTC),
            DrillPhase.DETECTED: datetime(2026, 10, 6, 2, 0, 1, 20_000, tzinfo=UTC),
            DrillPhase.HEALED: datetime(2026, 10, 6, 2, 0, 22, tzinfo=UTC),
        },
    )
    refused = replace(
        failed,
        id="drill-20261005-151202-node-kill",
        started_at=datetime(2026, 10, 5, 15, 12, 2, tzinfo=UTC),
        slot="",
        requested_by="mei",
        outcome=Outcome.REFUSED,
        reasons=("gate standby_ready: the standby gave no completion within 2 s",),
        phases={},
    )
    return failed, refused


def receipt_of_failover() -> Receipt:
    """Return the proof that all traffic went to the standby."""
    return Receipt(
        id="P0-20261121-030401-3f9c",
        service="deepseek-chat",
        level=Level.P0,
        action="switch_pool to standby",
        before=RoutePlan({"primary": 100}),
        after=RoutePlan({"primary": 0, "standby": 100}, Level.P0),
        state=ReceiptState.VERIFIED,
        because=("endpoints_down is 1, at or above 1",),
        detected_at=ago(30.2),
        decided_at=ago(30.198),
        times={
            ReceiptState.INTENDED: ago(30.19),
            ReceiptState.APPLIED: ago(30.15),
            ReceiptState.VERIFIED: ago(29.7),
        },
        detail="live configuration shows standby 100; 8 of 8 sampled answers came from standby-0 with level P0",
    )


def old_receipt() -> Receipt:
    """Return the proof of last month's failover."""
    return replace(
        receipt_of_failover(),
        id="P0-20261103-020001-a01b",
        state=ReceiptState.REVERTED,
        detected_at=passed_drill().phases[DrillPhase.DETECTED],
        decided_at=passed_drill().phases[DrillPhase.DECIDED],
        times={ReceiptState.VERIFIED: passed_drill().phases[DrillPhase.VERIFIED]},
        detail="given back in 3 steps; primary 100 in the live configuration",
    )


def resolved_incident() -> IncidentView:
    """Return last month's incident, caused by the drill."""
    start = passed_drill().phases[DrillPhase.DETECTED]
    incident = Incident(
        "inc-20261103-020001",
        "deepseek-chat",
        "P0",
        "primary is unavailable",
        IncidentState.RESOLVED,
        start,
        passed_drill().id,
        start + timedelta(seconds=0.5),
        start + timedelta(seconds=117),
    )
    return IncidentView(incident, (Entry(start, "detected", "endpoints_down is 1, at or above 1"),))


def month() -> BudgetWindow:
    """Return a month of traffic in which few requests failed."""
    made = BudgetWindow(timedelta(days=30), timedelta(hours=1))
    for hour in range(30 * 24):
        made.add(hour * 3600.0, 154_790.0, 154_800.0)
    return made


def idle() -> Overview:
    """Return a quiet day: everything is well and last month's drill passed."""
    pools = (
        gateway(),
        pool("primary", 100, well()[:9] + well()[10:], (up("primary", 0), up("primary", 1, 0.0391))),
        pool("base", 0, standby_well(), (up("base", 3, 0.021),), "reference-base"),
        pool("standby", 0, standby_well(), (up("standby", 2),)),
    )
    standing = Standing(
        service="deepseek-chat",
        at=NOW,
        level=Level.NONE,
        level_since=ago(1_580_000),
        why=(),
        mode=Mode.AUTO,
        pools=pools,
        rows=(
            RowStanding(P0, Phase.IDLE, ago(1_580_000), ()),
            RowStanding(P2, Phase.IDLE, ago(93_000), ()),
        ),
        not_armed={"P1": "needs pool `cache`, which the fleet does not have"},
        budgets=(BudgetStanding("availability", budget(month(), 0.9995, 30 * 86_400.0)),),
    )
    return Overview(
        standing=standing,
        incidents=(resolved_incident(),),
        drills=(passed_drill(), *older_drills()),
        receipts=(old_receipt(),),
        leases=(),
        next_drill=ScheduledDrill("monthly", "node-kill", datetime(2026, 12, 1, 2, 0, tzinfo=UTC)),
        now=NOW,
        version="0.1.0",
    )


def failover() -> Overview:
    """Return P0 in force while a drill holds the whole primary pool down."""
    calm = idle()
    gone = (
        Evidence("availability", 0.0, Band.BREACH, 62, source="looks at 2 endpoints", reason="2 of 2 endpoints down"),
        Evidence("endpoints_down", 1.0, Band.BREACH, 2, source="looks at 2 endpoints", reason="reconnect refused"),
        *(Evidence(e.signal, None, Band.UNKNOWN, reason="no endpoint answered /metrics") for e in well()[2:]),
    )
    pools = (
        gateway(0.0062, 0.9871, 0.734),
        pool("primary", 0, gone, (down("primary", 0), down("primary", 1))),
        calm.standing.pools[2],
        pool("standby", 100, standby_well(), (up("standby", 2, 0.0512),)),
    )
    standing = replace(
        calm.standing,
        level=Level.P0,
        level_since=ago(29.7),
        why=("endpoints_down is 1, at or above 1", "availability is 0, below 0.5"),
        pools=pools,
        rows=(
            RowStanding(P0, Phase.ENGAGED, ago(29.7), ("endpoints_down is 1, at or above 1",)),
            RowStanding(P2, Phase.PENDING, ago(4), ("kv_cache_utilization is 0.962, at or above 0.95",)),
        ),
    )
    drill = Drill(
        id=DRILL_ID,
        experiment="node-kill",
        row="P0",
        objective=timedelta(minutes=5),
        requested_by="mei",
        started_at=ago(31.5),
        phases={
            DrillPhase.FAULT: ago(30.214),
            DrillPhase.DETECTED: ago(30.2),
            DrillPhase.DECIDED: ago(30.198),
            DrillPhase.ACTED: ago(30.15),
            DrillPhase.VERIFIED: ago(29.7),
        },
    )
    incident = Incident(
        "inc-20261121-030401",
        "deepseek-chat",
        "P0",
        "primary is unavailable",
        IncidentState.MITIGATED,
        ago(30.2),
        DRILL_ID,
        ago(29.7),
    )
    timeline = (
        Entry(ago(30.2), "detected", "primary: endpoints_down is 1, at or above 1"),
        Entry(ago(30.198), "decided", "row P0 trips: switch_pool to standby"),
        Entry(ago(30.17), "gate", "standby-2 gave 4 tokens in 51 ms; spare capacity 62%"),
        Entry(ago(30.15), "lever", "Envoy's routes written: standby 100"),
        Entry(ago(29.7), "receipt", "verified: 8 of 8 sampled answers came from standby with level P0"),
    )
    return replace(
        calm,
        standing=standing,
        incidents=(resolved_incident(), IncidentView(incident, timeline)),
        drills=(drill, *calm.drills),
        receipts=(receipt_of_failover(), *calm.receipts),
        leases=tuple(
            Lease(
                id=f"lease-{n}",
                drill_id=DRILL_ID,
                kind=FaultKind.NODE_KILL,
                endpoint=endpoint("primary", n),
                deadline=NOW + timedelta(seconds=14),
                state=LeaseState.PROVEN,
                intended_at=ago(30.4),
                injected_at=ago(30.214 - n / 1000),
                proven_at=ago(30.1),
                detail=f"process group {48_120 + n} is gone; port {41_200 + n} refuses",
            )
            for n in (0, 1)
        ),
    )


def releasing() -> Overview:
    """Return a P2 measure on its way back, a P0 row that failed, observe mode and a problem of our own at once."""
    calm = idle()
    weights = {"primary": 75, "base": 25}
    standing = replace(
        calm.standing,
        level=Level.P2,
        level_since=ago(412),
        why=("gpu_utilization is in breach at 0.983", "latency_p99 is in warn at 1.31"),
        pools=tuple(
            replace(p, weight=weights.get(p.name, 0)) if p.name != "gateway" else p for p in calm.standing.pools
        ),
        rows=(
            RowStanding(P0, Phase.FAILED, ago(8), ("error_rate is 0.061, at or above 0.05",)),
            RowStanding(P2, Phase.RELEASING, ago(42), (), given_back=0.5),
        ),
        problems=("fleet.pools.standby: run/fleet/standby.json cannot be read: Permission denied",),
        mode=Mode.OBSERVE,
    )
    return replace(calm, standing=standing)


def empty() -> Overview:
    """Return the first second of a control plane: nothing looked at, nothing stored."""
    standing = Standing(
        service="deepseek-chat",
        at=NOW,
        level=Level.NONE,
        level_since=NOW,
        why=(),
        mode=Mode.AUTO,
        pools=(),
        rows=(),
        not_armed={},
    )
    return Overview(standing, (), (), (), (), None, NOW, "0.1.0")


def hostile() -> Overview:
    """Return a failover in which every text that can come from outside is meant to break the page."""
    view, text = failover(), HOSTILE
    long = text + "A" * 10_000
    bad = Endpoint(text, "primary", f"javascript:{text}", text, text)
    evidence = (
        Evidence("availability", 0.0, Band.BREACH, 3, source=long, reason=text),
        Evidence(text, float("nan"), Band.UNKNOWN, source=text, reason=long),
    )
    pools = (
        pool("primary", 60, evidence, (EndpointStanding(bad, up=False, since=ago(3), detail=long),), text),
        pool(text, 40, evidence, (EndpointStanding(bad, up=None, since=None),)),
    )
    standing = replace(
        view.standing,
        service=text,
        pools=pools,
        why=(long, text),
        rows=tuple(replace(r, because=(long,)) for r in view.standing.rows),
        not_armed={text: long},
        problems=(long,),
    )
    incident = replace(view.incidents[1].incident, id=text, title=long, drill_id=text, level=text)
    drill = replace(view.drills[0], id=text, experiment=text, row=text, requested_by=text, reasons=(long, text))
    receipt = replace(
        view.receipts[0], id=text, action=text, because=(long,), detail=text, after=RoutePlan({text: 100}, Level.P0)
    )
    return Overview(
        standing=standing,
        incidents=(IncidentView(incident, (Entry(ago(1), text, long),)),),
        drills=(drill,),
        receipts=(receipt,),
        leases=(replace(view.leases[0], id=text, drill_id=text, endpoint=bad, detail=long),),
        next_drill=ScheduledDrill(text, text, NOW + timedelta(hours=3)),
        now=NOW,
        version=text,
    )


def large(endpoints: int = 1000) -> Overview:
    """Return a quiet day of a large fleet, with three endpoints down and one that nobody has looked at."""
    calm = idle()
    many = [up("primary", n, 0.03 + n / 50_000) for n in range(endpoints)]
    for n in (17, 230, 231):
        many[n] = down("primary", n)
    many[5] = EndpointStanding(endpoint("primary", 5), up=None, since=None)
    pools = tuple(replace(p, endpoints=tuple(many)) if p.name == "primary" else p for p in calm.standing.pools)
    return replace(calm, standing=replace(calm.standing, pools=pools))


SAMPLES: Mapping[str, Callable[[], Overview]] = {
    "idle": idle,
    "failover": failover,
    "releasing": releasing,
    "empty": empty,
    "hostile": hostile,
    "large": large,
}
