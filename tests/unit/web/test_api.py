"""The HTTP interface on made-up ports: who may do what, how it says no, and what it tells machines."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import aiohttp
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge

from controlplane.chaos.drill import Drill, Event, Halt, Outcome
from controlplane.chaos.experiment import Experiment, ExperimentFile, PlannedFault
from controlplane.chaos.fault import FaultKind, Lease
from controlplane.chaos.redundancy import Preview, Target
from controlplane.chaos.safety import Go, Refusal
from controlplane.degradation.actuator import Receipt
from controlplane.degradation.instruction import Instruction, Kind, Refused
from controlplane.degradation.matrix import Level
from controlplane.errors import FaultError, Problem, UsageError
from controlplane.flows.faults import FaultRequest
from controlplane.flows.people import Said
from controlplane.flows.rollout import Refused as RolloutRefused
from controlplane.flows.standing import Standing
from controlplane.incidents.alert import Alert, Status
from controlplane.incidents.history import History, Trace
from controlplane.incidents.incident import Incident
from controlplane.incidents.response import Refused as NotHeard
from controlplane.incidents.response import Verb
from controlplane.render.reports.drill import Report
from controlplane.signals.recording import Point
from controlplane.store.alerts import AlertPage
from controlplane.telemetry import Requests
from controlplane.web.api.levers import LeverPorts
from controlplane.web.api.signals import SignalPorts
from controlplane.web.app import WebPorts, build_app
from controlplane.web.changes import Changes
from controlplane.web.incidents import IncidentPorts
from controlplane.web.page import Overview, Role
from controlplane.web.paging import Mark
from tests.support import consoles, incident_pages, overviews
from tests.support.doors import FILE_TOKEN, Doors

TOKEN = FILE_TOKEN
NOW = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
DRILL = Drill("abc123", "node-kill", "P0", timedelta(minutes=5), "somebody", NOW)
FAULT: dict[str, object] = {"kind": "node-kill", "pool": "primary"}
POSTS: dict[str, tuple[str, dict[str, object], int]] = {
    "start a drill": ("/api/v1/drills", {"experiment": "node-kill"}, 202),
    "inject": (f"/api/v1/drills/{DRILL.id}/faults", FAULT, 201),
    "abort a drill": (f"/api/v1/drills/{DRILL.id}/abort", {"why": "enough"}, 202),
    "heal a drill": (f"/api/v1/drills/{DRILL.id}/heal", {}, 200),
    "heal": ("/api/v1/heal", {}, 200),
    "halt": ("/api/v1/halt", {"why": "smoke", "by": "ann"}, 200),
    "resume": ("/api/v1/resume", {"by": "ann"}, 200),
    "pin": ("/api/v1/pins/P1", {"why": "peak", "for": "30m"}, 201),
    "unpin": ("/api/v1/pins/P1/end", {"why": "over"}, 200),
    "approve": ("/api/v1/rows/P0/approve", {"why": "go"}, 201),
    "refuse": ("/api/v1/rows/P0/refuse", {"why": "no"}, 201),
    "release": ("/api/v1/rows/P0/release", {"why": "well"}, 201),
    "pull the brake": ("/api/v1/brake", {"why": "stop"}, 201),
    "let go of the brake": ("/api/v1/brake/release", {"why": "go on"}, 200),
    "roll out": ("/api/v1/rollouts", {"service": "chat", "to": "next"}, 202),
    "abort a rollout": ("/api/v1/rollouts/abort", {}, 200),
    "acknowledge": ("/api/v1/incidents/x/acknowledge", {}, 200),
    "assign": ("/api/v1/incidents/x/assign", {"to": "bob"}, 200),
    "note": ("/api/v1/incidents/x/note", {"text": "seen before"}, 200),
    "resolve": ("/api/v1/incidents/x/resolve", {"why": "mended"}, 200),
    "reopen": ("/api/v1/incidents/x/reopen", {"why": "it is back"}, 200),
    "hand out a token": ("/api/v1/tokens", {"name": "grafana", "role": "viewer"}, 201),
    "take a token back": ("/api/v1/tokens/000000000000/revoke", {}, 200),
}
ALERT = Alert("abc", NOW, Status.FIRING, "Overloaded", "chat", labels={"alertname": "Overloaded", "service": "chat"})
EXPERIMENTS = (
    ExperimentFile("broken", None, (Problem("broken.yaml", "not an experiment", "it is empty", "mend the file"),)),
    ExperimentFile(
        "node-kill", Experiment("node-kill", "Kill a node", "", "P0", "one node", faults=(
            PlannedFault(FaultKind.NODE_KILL, "primary", 0.5, 0, timedelta(seconds=8), {}),
        )), (),
    ),
)  # fmt: skip
T = TypeVar("T")
HALT = Halt("smoke", "ann", NOW)
PREVIEW = Preview(
    (Target("node-kill", "primary", ("primary-0",), timedelta(seconds=8)),), 4, ("primary-0",), "primary",
    ("primary-1",), 20.0, 10.0, 20.0, (),
)  # fmt: skip


@dataclass(slots=True)
class Told:
    """What the application asked of its ports."""

    calls: list[str] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    requests: list[FaultRequest] = field(default_factory=list)
    rollout: RolloutRefused | None = None
    missing: tuple[str, ...] = ()
    answer: Drill | Refusal | Exception = DRILL
    said: list[Said] = field(default_factory=list)
    refused: str = ""
    """Why no instruction can be followed."""
    after: tuple[datetime, str] | None = None
    """Behind which alert a page was to begin."""
    doors: Doors = field(default_factory=Doors)
    pages: consoles.Asked = field(default_factory=lambda: consoles.Asked(drill=replace(DRILL, outcome=Outcome.PASSED)))
    """What the console's forms asked for."""


def incident_ports(told: Told, view: Overview) -> IncidentPorts:
    made = incident_pages.ports(view)

    async def say(incident_id: str, verb: Verb, who: str, text: str, to: str) -> Incident | NotHeard:
        told.calls.append(f"{who}: {verb} {incident_id} {text} {to}".strip())
        if incident_id != "x":
            return await made.handling.say(incident_id, verb, who, text, to)
        return view.incidents[0].incident

    handling = incident_pages.handling(view, told.limits)
    return replace(made, handling=replace(handling, say=say, get=made.handling.get))


def lever_ports(told: Told) -> LeverPorts:
    async def instruct(said: Said) -> Instruction | Refused:
        told.calls.append(f"{said.who}: {said.kind} {said.level}")
        told.said.append(said)
        until = NOW + said.lasts if said.lasts else None
        made = Instruction("i1", "chat", said.kind, said.level, said.who, said.why, NOW, until)
        return Refused(told.refused) if told.refused else made

    async def end(kind: Kind, level: Level, who: str, why: str) -> Instruction | Refused:
        told.calls.append(f"{who}: end {kind} {level}: {why}")
        return Refused(told.refused) if told.refused else Instruction("i1", "chat", kind, level, "ann", "peak", NOW)

    async def instructions(limit: int, after: Mark | None = None) -> tuple[Instruction, ...]:
        told.limits.append(limit)
        said = (Instruction("i1", "chat", Kind.PIN, Level.P1, "ann", "peak", NOW),)
        return behind(said, limit, after, lambda one: (one.at, one.id))

    def recording(lasts: timedelta) -> tuple[Point, ...]:
        return (Point(NOW - lasts, "primary", "availability", 1.0, 5),)

    return LeverPorts(instruct, end, instructions, recording)


@dataclass(frozen=True, slots=True)
class FakeDesk:
    """Notes what is asked of it."""

    told: Told

    async def start(self, experiment: str, requested_by: str) -> Drill | Refusal:
        self.told.calls.append(f"start {experiment} for {requested_by}")
        if isinstance(self.told.answer, Exception):
            raise self.told.answer
        return self.told.answer

    async def preview(self, experiment: str) -> tuple[Preview, Go | Refusal]:
        self.told.calls.append(f"preview {experiment}")
        return PREVIEW, self.told.answer if isinstance(self.told.answer, Refusal) else Go(("no freeze",))

    async def abort(self, drill_id: str, why: str, by: str) -> Drill | Refusal:
        self.told.calls.append(f"abort {drill_id} for {by}: {why}")
        return self.told.answer if isinstance(self.told.answer, Refusal) else DRILL

    async def halt(self, why: str, by: str) -> tuple[Halt, tuple[str, ...]]:
        self.told.calls.append(f"halt for {by}: {why}")
        return Halt(why, by, NOW), ("node-kill on primary-0: healed",)

    async def resume(self, by: str) -> Halt | None:
        self.told.calls.append(f"resume for {by}")
        return HALT


def behind(found: tuple[T, ...], limit: int, after: Mark | None, mark_of: Callable[[T], Mark]) -> tuple[T, ...]:
    """Return a page of what is there, as the store does."""
    ordered = sorted(found, key=mark_of, reverse=True)
    return tuple([one for one in ordered if after is None or mark_of(one) < after][:limit])


def ports(told: Told) -> WebPorts:  # noqa: C901 - one small function a port
    view = overviews.failover()
    guard, admin = told.doors.ports()

    async def events(drill_id: str) -> tuple[Event, ...]:
        return (Event(NOW, "step", f"begins in {drill_id}"),)

    async def report(drill: Drill) -> Report:
        return Report(drill, view.leases, await events(drill.id), view.drills)

    async def halt() -> Halt | None:
        return HALT

    async def start_rollout(
        service: str, pool: str, steps: tuple[float, ...], hold: timedelta, asked_by: str
    ) -> Receipt | RolloutRefused:
        told.calls.append(f"roll {service} out to {pool} by {steps} each {hold} for {asked_by}")
        return told.rollout or view.receipts[0]

    async def abort(asked_by: str) -> Receipt | RolloutRefused:
        told.calls.append(f"abort for {asked_by}")
        return told.rollout or view.receipts[0]

    async def newest() -> Receipt | None:
        return view.receipts[0]

    async def inject(drill: Drill, request: FaultRequest) -> tuple[Lease, ...]:
        told.calls.append(f"inject {drill.id}")
        told.requests.append(request)
        return view.leases

    async def heal_drill(drill_id: str) -> tuple[str, ...]:
        told.calls.append(f"heal {drill_id}")
        return ("primary-0: healed",)

    async def heal_all() -> tuple[str, ...]:
        told.calls.append("heal everything")
        return ()

    async def drill(drill_id: str) -> Drill | None:
        return DRILL if drill_id == DRILL.id else None

    async def receipts(limit: int, after: Mark | None = None) -> tuple[Receipt, ...]:
        told.limits.append(limit)
        return behind(view.receipts, limit, after, lambda one: (one.decided_at, one.id))

    async def receipt(receipt_id: str) -> Receipt | None:
        return next((one for one in view.receipts if one.id == receipt_id), None)

    async def experiments() -> tuple[ExperimentFile, ...]:
        return EXPERIMENTS

    async def kept(about: str) -> History:
        return (Trace("primary", "latency_p99", ((NOW.timestamp(), 0.4),)),) if about == DRILL.id else ()

    async def drills(limit: int, after: Mark | None = None) -> tuple[Drill, ...]:
        told.limits.append(limit)
        return behind(view.drills, limit, after, lambda one: (one.started_at, one.id))

    async def leases() -> tuple[Lease, ...]:
        return view.leases

    async def overview() -> Overview:
        return view

    def standing() -> Standing:
        return view.standing

    async def alerts(limit: int, after: tuple[datetime, str] | None) -> AlertPage:
        told.limits.append(limit)
        told.after = after
        return AlertPage((ALERT,), (ALERT.starts_at, ALERT.fingerprint) if after is None else None)

    registry = CollectorRegistry()
    Gauge("controlplane_thing", "A thing.", registry=registry).set(1)
    return WebPorts(
        standing=standing, overview=overview, receipts=receipts, receipt=receipt,
        drills=drills, drill=drill, incident_pages=incident_ports(told, view),
        leases=leases, desk=FakeDesk(told), events=events, report=report, halt=halt, inject=inject,
        heal_drill=heal_drill, heal_all=heal_all, not_ready=lambda: told.missing, in_charge=lambda: True,
        role=lambda: Role("leader", ""),
        lever=lever_ports(told), start_rollout=start_rollout, abort_rollout=abort, newest_rollout=newest,
        signals=SignalPorts(standing, incident_pages.policy().thresholds, lever_ports(told).recording, kept),
        experiments=experiments, metrics_path="/metrics", requests=Requests(registry),
        registry=registry, changes=Changes(), alerts=alerts, guard=guard, admin=admin,
        console=consoles.ports(view, told.pages, told.doors.audit),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, read whole."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def is_problem(self) -> bool:
        """Tell whether it is a problem document (RFC 9457) about its own status."""
        return self.headers["content-type"] == "application/problem+json" and self.json["status"] == self.status


@dataclass(frozen=True, slots=True)
class Server:
    """The application, served for real on a free port."""

    url: str
    app: FastAPI
    session: aiohttp.ClientSession
    told: Told

    async def get(self, path: str, token: str = TOKEN) -> Reply:
        return await self.send("GET", path, authorization=f"Bearer {token}" if token else "")

    async def post(self, path: str, body: object, token: str = TOKEN) -> Reply:
        return await self.send("POST", path, data=json.dumps(body), authorization=f"Bearer {token}" if token else "")

    async def send(self, method: str, path: str, data: str | bytes | None = None, authorization: str = "") -> Reply:
        headers = {"content-type": "application/json"} | ({"authorization": authorization} if authorization else {})
        async with self.session.request(method, self.url + path, data=data, headers=headers) as answer:
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.text())


class _Uvicorn(uvicorn.Server):
    """Uvicorn that looks more often than ten times a second whether it shall end."""

    async def main_loop(self) -> None:
        """Wait for the end; there is nothing else to do at each tick."""
        while not self.should_exit:  # noqa: ASYNC110 - uvicorn's own flag
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what there is; the client has gone before.

        A file that was sent is closed after its last byte: cut off, its request would leave it to the garbage.
        """
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)
        while self.server_state.tasks:  # noqa: ASYNC110 - uvicorn's own
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Connections inherit it. asyncio sets it only where the socket names its protocol (the product's loop always);
        # without it, an answer's body waits 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Idle connections stay: one that uvicorn closes after its 5 s, on a machine that stood still, loses a POST.
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_keep_alive=120
        )
        server = _Uvicorn(config)
        running = asyncio.create_task(server._serve([listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn's own flag
            await asyncio.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    told = Told()
    app = build_app(ports(told))
    async with serving(app) as url, aiohttp.ClientSession() as session:
        yield Server(url, app, session, told)


# -- who may -----------------------------------------------------------------------------------------------------------


def test_the_list_of_posts_is_every_post_there_is() -> None:
    paths = build_app(ports(Told())).openapi()["paths"]
    named = {
        "{drill_id}": DRILL.id,
        "{token_id}": "0" * 12,
        "{incident_id}": "x",
        "pins/{level}": "pins/P1",
        "rows/{level}": "rows/P0",
    }
    named["{incident_id}"] = "x"
    posts = [path for path, item in paths.items() if "post" in item]
    for blank, name in named.items():
        posts = [path.replace(blank, name) for path in posts]
    assert sorted(posts) == sorted(path for path, _, _ in POSTS.values())
    methods = {method for item in paths.values() for method in item}
    assert methods == {"get", "post"}


@pytest.mark.parametrize("name", sorted(POSTS))
@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é"],
    ids=["none", "wrong", "longer", "shorter", "empty", "basic", "bare", "not ASCII"],
)
async def test_without_the_token_nothing_is_done(server: Server, name: str, authorization: str) -> None:
    path, body, _ = POSTS[name]
    answer = await server.send("POST", path, json.dumps(body), authorization)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.is_problem
    assert TOKEN not in answer.text
    assert server.told.calls == []


@pytest.mark.parametrize("name", sorted(POSTS))
async def test_with_the_token_it_is_done(server: Server, name: str) -> None:
    path, body, status = POSTS[name]
    assert (await server.post(path, body)).status == status
    assert len(server.told.calls) == ("/tokens" not in path)


@pytest.mark.parametrize("path", [f"/api/v1/drills/{'0' * 12}/heal", f"/api/v1/drills/{'0' * 12}/faults"])
async def test_who_has_no_token_does_not_learn_which_drills_there_are(server: Server, path: str) -> None:
    assert (await server.post(path, FAULT, token="")).status == 401
    assert (await server.post(path, FAULT)).status == 404


# -- the lever ---------------------------------------------------------------------------------------------------------


async def test_an_instruction_carries_who_why_and_how_long(server: Server) -> None:
    answer = await server.post("/api/v1/pins/none", {"why": "racks", "who": "ann", "for": "1h30m"})
    assert server.told.said == [Said(Kind.PIN, Level.NONE, "ann", "racks", timedelta(minutes=90))]
    assert (answer.json["kind"], answer.json["until"]) == ("pin", "2026-11-21T04:34:05+00:00")
    assert (await server.get("/api/v1/instructions?limit=500")).json[0]["who"] == "ann"
    assert server.told.limits == [501]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/pins/P9", {"why": "x"}, 422),
        ("/api/v1/pins/P1", {}, 422),
        ("/api/v1/pins/P1", {"why": ""}, 422),
        ("/api/v1/pins/P1", {"why": "x", "until": "noon"}, 422),
        ("/api/v1/pins/P1", {"why": "x", "for": "soon"}, 400),
        ("/api/v1/pins/P1", {"why": "x", "for": "0s"}, 400),
        ("/api/v1/pins/P1", {"why": "x", "for": "31d"}, 400),
        ("/api/v1/rows/none/approve", {"why": "x"}, 422),
        ("/api/v1/rows/P0/approve", {"why": "x" * 1001}, 422),
    ],
)
async def test_an_instruction_that_makes_no_sense_is_refused(
    server: Server, path: str, body: dict[str, object], status: int
) -> None:
    answer = await server.post(path, body)
    assert answer.status == status
    assert answer.is_problem
    assert server.told.calls == []


@pytest.mark.parametrize("name", ["pin", "unpin", "approve", "let go of the brake"])
async def test_an_instruction_that_cannot_be_followed_is_a_conflict_with_its_reason(server: Server, name: str) -> None:
    server.told.refused = "row P0 only watches"
    path, body, _ = POSTS[name]
    answer = await server.post(path, body)
    assert answer.status == 409
    assert answer.is_problem
    assert answer.json["detail"] == "row P0 only watches"


async def test_a_recording_is_a_line_a_value(server: Server) -> None:
    answer = await server.get("/api/v1/recording?for=4m5s")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"at": "2026-11-21T03:00:00.000+00:00", "pool": "primary", "signal": "availability", "value": 1.0, "samples": 5}
    ]
    assert (await server.get("/api/v1/recording?for=ever")).status == 400


async def test_what_fires_comes_page_by_page(server: Server) -> None:
    first = (await server.get("/api/v1/alerts?limit=500")).json
    assert [alert["name"] for alert in first["alerts"]] == ["Overloaded"]
    assert (await server.get(f"/api/v1/alerts?after={first['next']}")).json["next"] is None
    assert server.told.after == (ALERT.starts_at, ALERT.fingerprint)
    assert server.told.limits == [500, 100]
    for wrong in ("abc", "W10", "WyIyMDI2LTExLTIxVDAzOjA0OjA1IiwiYSJd"):
        assert (await server.get(f"/api/v1/alerts?after={wrong}")).status == 400


async def test_the_machine_can_be_read(server: Server) -> None:
    table = (await server.get("/api/v1/machine")).json
    assert {"from": "idle", "cue": "trip", "to": "engaging", "effects": ["engage"]} in table


# -- saying no ---------------------------------------------------------------------------------------------------------


async def test_a_rollout_is_read_with_its_units_and_a_refusal_is_a_conflict(server: Server) -> None:
    body = {"service": "chat", "to": "next", "steps": ["5%", "100%"], "hold": "2m", "requested_by": "ann"}
    assert (await server.post("/api/v1/rollouts", body)).status == 202
    assert server.told.calls == ["roll chat out to next by (0.05, 1.0) each 0:02:00 for ann"]
    assert (await server.get("/api/v1/rollouts/newest")).json["id"]
    assert (await server.post("/api/v1/rollouts", {**body, "steps": ["much"]})).status == 400
    assert (await server.post("/api/v1/rollouts", {**body, "pool": "x"})).status == 422
    server.told.rollout = RolloutRefused("P0 is not idle")
    for path, sent in (("/api/v1/rollouts", body), ("/api/v1/rollouts/abort", {})):
        answer = await server.post(path, sent)
        assert (answer.status, answer.json["detail"]) == (409, "P0 is not idle")
        assert answer.is_problem


async def test_a_refusal_is_a_conflict_with_every_reason(server: Server) -> None:
    server.told.answer = Refusal(("1 incident is open", "the standby does not answer a completion"))
    answer = await server.post("/api/v1/drills", {"experiment": "node-kill"})
    assert answer.status == 409
    assert answer.is_problem
    assert answer.json["reasons"] == ["1 incident is open", "the standby does not answer a completion"]
    assert answer.json["detail"] == "1 incident is open; the standby does not answer a completion"


@pytest.mark.parametrize(
    ("error", "status"),
    [(UsageError("what", "why", "way out"), 400), (FaultError("what", "why", "way out"), 503)],
    ids=["usage", "fault"],
)
async def test_an_error_of_ours_keeps_what_why_and_fix(server: Server, error: Exception, status: int) -> None:
    server.told.answer = error
    answer = await server.post("/api/v1/drills", {"experiment": "node-kill"})
    assert answer.status == status
    assert answer.is_problem
    assert {k: answer.json[k] for k in ("type", "title", "detail", "fix")} == {
        "type": "about:blank", "title": "what", "detail": "why", "fix": "way out",
    }  # fmt: skip


async def test_an_error_that_nobody_foresaw_is_a_problem_document_that_gives_nothing_away(server: Server) -> None:
    server.told.answer = RuntimeError("a secret of the inside")
    answer = await server.post("/api/v1/drills", {"experiment": "node-kill"})
    assert answer.status == 500
    assert "secret" not in answer.text
    assert answer.is_problem
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("path", ["/api/v1/drills/ffffffffffff", "/api/v1/drills/..x", "/api/v1/drills/x%00y"])
async def test_a_drill_that_is_not_there_is_not_found(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert answer.status == 404
    assert answer.is_problem


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/api/v1/nothing", 404), ("PUT", "/healthz", 405)]
)
async def test_a_path_or_method_that_is_not_there_is_a_problem_document_too(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = await server.send(method, path, authorization=f"Bearer {TOKEN}")
    assert answer.status == status
    assert answer.is_problem


BAD_BODIES: dict[str, str | bytes] = {
    "nothing": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "no experiment": b"{}",
    "a path": b'{"experiment": "../../etc/passwd"}',
    "capitals": b'{"experiment": "Node-Kill"}',
    "a line end": b'{"experiment": "node-kill\\n"}',
    "too long": json.dumps({"experiment": "x" * 65}),
    "a number": b'{"experiment": 1}',
    "not a number": b'{"experiment": NaN}',
    "an unknown key": b'{"experiment": "node-kill", "force": true}',
    "a long name": json.dumps({"experiment": "node-kill", "requested_by": "x" * 129}),
    "half a character": b'{"experiment": "\\ud800"}',
    "not UTF-8": b'{"experiment": "\xff"}',
}


@pytest.mark.parametrize("case", sorted(BAD_BODIES))
async def test_a_body_that_is_not_valid_is_said_to_be_so(server: Server, case: str) -> None:
    answer = await server.send("POST", "/api/v1/drills", BAD_BODIES[case], f"Bearer {TOKEN}")
    assert answer.status in (400, 422)
    assert answer.is_problem
    assert answer.json["title"]
    assert server.told.calls == []


@pytest.mark.parametrize(
    "change", [{"kind": "earthquake"}, {"pool": "x" * 129}, {"endpoints": "half"}, {"down_for": "8 parsecs"}, {"n": 1}]
)
async def test_a_fault_that_is_not_valid_is_not_injected(server: Server, change: dict[str, object]) -> None:
    answer = await server.post(f"/api/v1/drills/{DRILL.id}/faults", FAULT | change)
    assert answer.status in (400, 422)
    assert answer.is_problem
    assert server.told.requests == []


async def test_a_drill_id_that_could_not_be_one_is_refused(server: Server) -> None:
    for drill_id in ("ABC", "a" * 33, "..%2f..", "a-b"):
        answer = await server.post(f"/api/v1/drills/{drill_id}/heal", {})
        assert answer.status in (404, 422)
    assert server.told.calls == []


# -- doing -------------------------------------------------------------------------------------------------------------


async def test_a_fault_request_is_read_with_its_units(server: Server) -> None:
    await server.post(f"/api/v1/drills/{DRILL.id}/faults", FAULT | {"endpoints": "50%", "down_for": "1m30s"})
    (request,) = server.told.requests
    assert (request.share, request.lasts) == (0.5, timedelta(seconds=90))


async def test_a_halt_says_what_it_ended_and_stays_until_it_is_resumed(server: Server) -> None:
    answer = await server.post("/api/v1/halt", {"why": "smoke", "by": "ann"})
    assert answer.json["halt"]["why"] == "smoke"
    assert answer.json["healed"] == ["node-kill on primary-0: healed"]
    assert (await server.get("/api/v1/halt")).json["halt"]["by"] == "ann"
    assert (await server.post("/api/v1/resume", {"by": "bob"})).json["halt"]["why"] == "smoke"
    assert server.told.calls == ["halt for ann: smoke", "resume for bob"]


async def test_a_halt_needs_a_reason(server: Server) -> None:
    assert (await server.post("/api/v1/halt", {"why": ""})).status == 422
    assert (await server.post("/api/v1/halt", {})).status == 422
    assert server.told.calls == []


async def test_a_preview_tells_what_would_break_and_what_the_gates_say(server: Server) -> None:
    found = (await server.get("/api/v1/experiments/node-kill/preview")).json
    assert found["preview"]["survivors"] == ["primary-1"]
    assert "load: 10.0 -> 20.0 requests/s an endpoint (2.0x)" in found["words"]
    assert (found["refused"], found["gates"]) == ([], ["no freeze"])
    server.told.answer = Refusal(("an incident is open",))
    assert (await server.get("/api/v1/experiments/node-kill/preview")).json["refused"] == ["an incident is open"]
    assert (await server.get("/api/v1/experiments/..%2fx/preview")).status in (404, 422)


async def test_what_happened_in_a_drill_is_listed(server: Server) -> None:
    (event,) = (await server.get(f"/api/v1/drills/{DRILL.id}/events")).json
    assert event["text"] == f"begins in {DRILL.id}"
    assert (await server.get("/api/v1/drills/absent/events")).status == 404


async def test_a_report_is_markdown_and_a_page_with_a_picture(server: Server) -> None:
    found = (await server.get(f"/api/v1/drills/{DRILL.id}/report")).json
    assert found["markdown"].startswith("# Drill `node-kill` running")
    assert set(found["times_s"]) <= {"MTTD", "MTTM", "MTTR"}
    page = await server.get(f"/drills/{DRILL.id}")
    assert page.headers["content-type"].startswith("text/html")
    assert (await server.get("/drills/absent")).status == 404


async def test_a_drill_is_started_for_who_asked(server: Server) -> None:
    answer = await server.post("/api/v1/drills", {"experiment": "node-kill", "requested_by": "ana"})
    assert server.told.calls == ["start node-kill for ana"]
    assert answer.json["id"] == DRILL.id
    assert answer.json["outcome"] == Outcome.RUNNING


@pytest.mark.parametrize("path", ["receipts", "incidents", "drills"])
@pytest.mark.parametrize(
    ("asked", "given"), [("", 50), ("?limit=7", 7), ("?limit=500", 500)], ids=["default", "seven", "most"]
)
async def test_lists_are_bounded(server: Server, path: str, asked: str, given: int) -> None:
    assert (await server.get(f"/api/v1/{path}{asked}")).status == 200
    assert server.told.limits == [given + 1], "one more than the page has tells whether there is another"


@pytest.mark.parametrize("limit", ["many", "1.5", "", "NaN", "9" * 5000, "0", "-1", "501", "9" * 40])
async def test_a_limit_that_is_no_number_or_out_of_bounds_is_not_valid_and_nothing_is_clamped(
    server: Server, limit: str
) -> None:
    answer = await server.get(f"/api/v1/drills?limit={limit}")
    assert answer.status == 422
    assert answer.is_problem


# -- reading -----------------------------------------------------------------------------------------------------------

PAGES = ("/", "/fragment", "/healthz", "/readyz", "/metrics", "/api/v1/standing", "/api/v1/drills", "/api/v1/leases",
         "/api/v1/receipts", "/api/v1/incidents", f"/api/v1/drills/{DRILL.id}", f"/api/v1/drills/{DRILL.id}/report",
         f"/drills/{DRILL.id}", "/api/v1/halt", "/openapi.json", "/static/console.css",
         "/static/console.js")  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
async def test_every_answer_has_the_security_headers(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert answer.status == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert TOKEN not in answer.text
    assert server.told.calls == []


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/"])
async def test_nothing_but_static_files_is_served_as_one(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert answer.status == 404


async def test_errors_have_the_security_headers_too(server: Server) -> None:
    for answer in (await server.get("/nowhere"), await server.post("/api/v1/heal", {}, token="")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" in answer.headers


async def test_a_standing_is_whole_and_in_plain_units(server: Server) -> None:
    standing = (await server.get("/api/v1/standing")).json
    expected = overviews.failover().standing
    assert standing["level"] == "P0"
    assert [pool["name"] for pool in standing["pools"]] == [pool.name for pool in expected.pools]
    assert [row["row"]["within"] for row in standing["rows"]] == [r.row.within.total_seconds() for r in expected.rows]
    assert datetime.fromisoformat(standing["at"]).tzinfo is not None


async def test_readiness_names_what_is_missing(server: Server) -> None:
    assert (await server.get("/readyz")).json == {
        "ready": True, "not_ready": [], "in_charge": True, "role": "leader", "leader": "",
    }  # fmt: skip
    server.told.missing = ("primary-0 has not been looked at yet",)
    answer = await server.get("/readyz")
    assert answer.status == 503
    missing = ["primary-0 has not been looked at yet"]
    assert answer.json == {
        "ready": False, "not_ready": missing, "in_charge": True, "role": "leader", "leader": "",
    }  # fmt: skip
    assert (await server.get("/healthz")).text == "ok\n"


async def test_metrics_speak_both_formats(server: Server) -> None:
    plain = await server.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    assert "controlplane_thing 1.0" in plain.text
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    async with server.session.get(server.url + "/metrics", headers=wanted) as answer:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert (await answer.text()).endswith("# EOF\n")


async def test_the_description_lists_every_route_and_marks_those_that_want_the_token(server: Server) -> None:
    document = (await server.get("/openapi.json")).json
    pages = {r.path.replace(":path", "") for r in _routes(server.app) if not r.include_in_schema}
    assert [path for path in pages if path.startswith("/api")] == []
    paths = {(r.path.replace(":path", ""), m) for r in _routes(server.app) for m in r.methods if m != "HEAD"}
    routes = {(path, method) for path, method in paths if path not in pages}
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert described == routes
    operations = [(method, item) for path in document["paths"].values() for method, item in path.items()]
    assert all(item.get("summary") and item.get("description") and item.get("tags") for _, item in operations)
    free = {"/healthz", "/readyz"}
    assert {path for path, item in document["paths"].items() for m in item if not item[m]["security"]} == free


def _routes(app: FastAPI) -> list[Any]:
    own = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/static")
    included = [
        route for router in app.routes if hasattr(router, "original_router") for route in router.original_router.routes
    ]
    return [route for route in (*app.routes, *included) if getattr(route, "path", None) not in (None, *own)]


async def test_the_event_stream_tells_of_a_change_and_ends_when_the_server_stops(server: Server) -> None:
    changes = Changes()
    app = build_app(replace(ports(Told()), changes=changes))
    bearer = {"authorization": f"Bearer {TOKEN}"}
    async with serving(app) as url, server.session.get(url + "/events", headers=bearer) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert await _event(answer) == "retry: 2000\n\n"
        assert await _event(answer) == "event: change\ndata: 0\n\n"
        changes.tell()
        changes.tell()
        async with asyncio.timeout(30):
            assert await _event(answer) == "event: change\ndata: 2\n\n"
        changes.close()
        async with asyncio.timeout(30):
            assert await answer.content.read() == b""


async def _event(answer: aiohttp.ClientResponse) -> str:
    return (await answer.content.readuntil(b"\n\n")).decode()
