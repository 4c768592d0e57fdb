"""Several replicas of a control plane on one PostgreSQL, a small fleet of real processes, and an outside that notes.

Used by the bench `ha` and by the journeys of replicas. Two nodes are real processes with supervisors, as the drills'
substrate knows them; the gateway is one that is posted plans, and writes down each; whoever posts webhooks tries the
next replica when one does not take them, as a load balancer and Alertmanager do.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

import psutil

from bench.classic import free_ports
from controlplane.wholefile import write_whole
from tests.support.answering import Answering, answering
from tests.support.processes import Answer, ask

SERVICE = "ha"
ALERT = "RowAlert"
"""The alert that row P1 waits for."""
HOOK = "/hooks/alertmanager"
TOKEN = "one-token-for-all-webhooks"  # noqa: S105 - of processes that live for a minute
WITHIN_S = 60.0
_PAGE = """
service: ha
fleet:
  pools:
    primary: {{ endpoints: {{ file: sd/primary.json }} }}
    standby: {{ endpoints: {{ file: sd/standby.json }} }}
  gateway: {{ webhook: {{ url: "{url}/plan", listener: "{url}", secret: "file:secret" }} }}
  substrate: {{ process: {{ nodes_dir: nodes }} }}
probes:
  - http: {{ path: /health, every: 500ms, timeout: 400ms, failures: 2 }}
  - inference: {{ every: 1s }}
degradation:
  max_switches_per_hour: 100000
  receivers: {{ hook: {{ webhook: "{url}/receiver" }} }}
  P0: {{ release: {{ steps: [100%], hold: 200ms }} }}
  P1:
    when: {{ alert: RowAlert }}
    do: [ {{ notify: {{ receiver: hook }} }}, {{ switch_pool: {{ to: standby }} }} ]
    release: {{ steps: [100%], hold: 200ms }}
drills:
  monthly:
    experiments: [node-kill]
    gates: {{ error_budget_left: 0%, no_open_incident: false, standby_ready: false }}
    guards: {{}}
"""
_ENDPOINT = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
SAID = (
    b'{"id":"1","object":"text_completion","choices":[{"index":0,"text":"pong","finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(SAID)))
        self.end_headers()
        self.wfile.write(SAID)
    do_POST = do_GET
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
_COMPLETION = (
    b'{"id":"1","object":"text_completion","choices":[{"index":0,"text":"pong","finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)


def until(found: Callable[[], Any], what: str, within_s: float = WITHIN_S, every_s: float = 0.02) -> Any:
    """Ask again and again until the answer is true; return it. The last look begins after the deadline.

    Raises:
        TimeoutError: when it is not.
    """
    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() >= deadline
        with suppress(OSError, HTTPException, ValueError):
            if answer := found():
                return answer
        if late:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        time.sleep(every_s)


class Node:
    """A process that answers `/health`, and the supervisor that brings it back when its hold is over."""

    def __init__(self, nodes: Path, name: str, pool: str, port: int) -> None:
        self.name, self.pool, self.port = name, pool, port
        self._nodes = nodes
        self._ended = threading.Event()
        self._child = self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    @property
    def hold(self) -> Path:
        """The file that keeps it down."""
        return self._nodes / f"{self.name}.hold"

    def _start(self) -> "subprocess.Popen[bytes]":
        child = subprocess.Popen([sys.executable, "-c", _ENDPOINT, str(self.port)], start_new_session=True)
        page = {
            "node": self.name, "endpoint": self.name, "url": f"http://127.0.0.1:{self.port}", "pid": child.pid,
            "pgid": child.pid, "started_at": psutil.Process(child.pid).create_time(),
        }  # fmt: skip
        write_whole(self._nodes / f"{self.name}.json", json.dumps(page))
        return child

    def _supervise(self) -> None:
        while not self._ended.wait(0.02):
            if self._child.poll() is not None and not self._held():
                self._child = self._start()

    def _held(self) -> bool:
        try:
            until_s = float(json.loads(self.hold.read_text())["until"])
        except FileNotFoundError:
            return False
        except (OSError, ValueError, LookupError):
            return True
        if until_s > time.time():
            return True
        self.hold.unlink(missing_ok=True)
        return False

    def stop(self) -> None:
        """End both."""
        self._ended.set()
        self._thread.join()
        self._child.kill()
        self._child.wait()


@dataclass(frozen=True, slots=True)
class Move:
    """One plan that the gateway was posted."""

    at: float
    """Unix seconds."""
    key: str
    call: str
    """The idempotency key: of this very call."""
    weights: Mapping[str, int]


@dataclass(slots=True)
class Outside:
    """What the gateway and the receiver noted."""

    url: str = ""
    moves: list[Move] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    """Idempotency keys of what people were told."""
    level: str = "none"
    weights: Mapping[str, int] = field(default_factory=lambda: {"primary": 100})

    def twice(self) -> list[str]:
        """Return the engagements that were carried out by two calls."""
        calls: dict[str, set[str]] = {}
        for move in list(self.moves):
            if move.key.endswith("/0"):
                calls.setdefault(move.key, set()).add(move.call)
        return [key for key, made in calls.items() if len(made) > 1]


@contextmanager
def outside() -> Iterator[Outside]:
    """Serve the gateway and the receiver."""
    told = Outside()

    class Handler(Answering):
        def do_GET(self) -> None:
            state = {"weights": told.weights, "level": told.level, "pools": ["primary", "standby"]}
            self._say(json.dumps(state).encode())

        def do_POST(self) -> None:
            body = self.body()
            call = self.headers.get("idempotency-key", "")
            if self.path == "/receiver":
                told.messages.append(call)
            elif self.path == "/plan":
                plan = json.loads(body)
                told.moves.append(Move(time.time(), plan["key"], call, plan["weights"]))
                told.weights, told.level = plan["weights"], plan["level"]
            self._say(_COMPLETION)

        def _say(self, content: bytes) -> None:
            pool = max(told.weights, key=lambda name: told.weights[name])
            self.say(content, x_served_by=f"{pool}-0", x_degradation_level=told.level)

    with answering(Handler) as port:
        told.url = f"http://127.0.0.1:{port}"
        yield told


class Replica:
    """One `controlplane serve`; killed, stopped, woken and started again on the same state."""

    def __init__(self, folder: Path, name: str, database: str, more: Sequence[str], env: Mapping[str, str]) -> None:
        self.name = name
        self.port = free_ports(1)[0]
        self.state = folder / name
        self.state.mkdir()
        self.log = folder / f"{name}.log"
        (self.state / "webhook-token").write_text(f"{TOKEN}\n")
        self._command = [
            sys.executable, "-m", "controlplane", "serve", str(folder / "controlplane.yaml"), "--port", str(self.port),
            "--state-dir", str(self.state), "--database", database, "--experiments", str(folder / "experiments"), *more,
        ]  # fmt: skip
        self._env = {**os.environ, **env}
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it is waited for by whoever needs it."""
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._env)

    def send(self, sign: int) -> None:
        """Send it a signal."""
        if self.child:
            self.child.send_signal(sign)

    def kill(self) -> float:
        """SIGKILL it; return when (monotonic seconds)."""
        at = time.monotonic()
        if self.child:
            self.child.kill()
            self.child.wait()
            self.child = None
        return at

    def stop(self) -> None:
        """End it in order, if it is awake."""
        if self.child:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
            self.child = None

    def ask(self, method: str, path: str, body: object = None, within_s: float = 10.0) -> Answer:
        """Ask it; raises OSError or HTTPException when there is no answer."""
        token = TOKEN if path == HOOK else (self.state / "token").read_text().strip()
        url = f"http://127.0.0.1:{self.port}{path}"
        return ask(url, method, body, {"authorization": f"Bearer {token}"}, within_s)

    def role(self) -> str:
        """Return its role; empty when it does not answer."""
        try:
            return str(self.ask("GET", "/readyz", within_s=1.0).json["role"])
        except (OSError, HTTPException, ValueError, LookupError):
            return ""

    def ready(self) -> bool:
        """Tell whether it has seen everything."""
        with suppress(OSError, HTTPException):
            return self.ask("GET", "/readyz", within_s=1.0).status == 200
        return False


class World:
    """Replicas, a fleet, an outside, and a database behind them."""

    def __init__(
        self, folder: Path, out: Outside, database: str, replicas: int, more: Sequence[str] = (),
        env: Mapping[str, str] | None = None, down_for: str = "3s",
    ) -> None:  # fmt: skip
        self.out, self.folder, self.database = out, folder, database
        self.nodes_dir = folder / "nodes"
        for part in ("nodes", "sd", "experiments"):
            (folder / part).mkdir()
        ports = free_ports(2)
        (folder / "secret").write_text("shared")
        (folder / "controlplane.yaml").write_text(_PAGE.format(url=out.url))
        (folder / "experiments" / "node-kill.yaml").write_text(experiment(down_for))
        for pool, port in zip(("primary", "standby"), ports, strict=True):
            labels = {"endpoint": f"{pool}-0", "node": f"node-{pool}-0"}
            listed = [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]
            (folder / "sd" / f"{pool}.json").write_text(json.dumps(listed))
        self.nodes = [
            Node(self.nodes_dir, f"node-{pool}-0", pool, port)
            for pool, port in zip(("primary", "standby"), ports, strict=True)
        ]
        self.replicas = [Replica(folder, f"replica-{i}", database, more, env or {}) for i in range(replicas)]

    def leader(self) -> Replica | None:
        """Return the replica that is in charge and acts."""
        return next((r for r in self.replicas if r.child and r.role() == "leader"), None)

    def until_leader(self, but: Replica | None = None, within_s: float = WITHIN_S) -> Replica:
        """Wait for one in charge, another than one that was killed or put to sleep."""
        others = [r for r in self.replicas if r is not but and r.child]

        def found() -> Replica | None:
            return next((r for r in others if r.role() == "leader"), None)

        led = until(found, "another one is in charge", within_s, every_s=0.01)
        if not isinstance(led, Replica):
            raise TypeError(led)
        return led

    def until_ready(self) -> None:
        """Wait until every replica has seen the fleet."""

        def ready() -> bool:
            for replica in self.replicas:
                if replica.child and replica.child.poll() is not None:
                    raise RuntimeError(f"{replica.name} ended:\n{replica.log.read_text()[-3000:]}")
            return all(replica.ready() for replica in self.replicas if replica.child)

        until(ready, "every replica is ready")

    def start_drill(self) -> str:
        """Start a drill at whoever is in charge, as soon as its gates are open; return its id."""

        def started() -> str:
            led = self.leader()
            answer = led.ask("POST", "/api/v1/drills", {"experiment": "node-kill"}) if led else None
            return str(answer.json["id"]) if answer and answer.status == 202 else ""

        return str(until(started, "a drill starts", every_s=0.25))

    def until_calm(self) -> Replica:
        """Wait until nothing is broken, nothing is engaged and no drill runs; return the one in charge."""

        def calm() -> Replica | None:
            led = self.leader()
            if led is None or any(n.hold.exists() for n in self.nodes):
                return None
            standing = led.ask("GET", "/api/v1/standing").json
            up = [e["up"] for pool in standing["pools"] if pool["name"] != "gateway" for e in pool["endpoints"]]
            # The level is none too while a row is still being engaged.
            idle = standing["level"] == "none" and {row["phase"] for row in standing["rows"]} == {"idle"}
            quiet = idle and not led.ask("GET", "/api/v1/leases").json
            drills = led.ask("GET", "/api/v1/drills?limit=1").json
            running = bool(drills) and drills[0]["outcome"] == "running"
            return led if quiet and not running and up and all(up) else None

        led = until(calm, "all is calm again", 120.0, every_s=0.1)
        if not isinstance(led, Replica):
            raise TypeError(led)
        return led


def experiment(down_for: str) -> str:
    """Return an experiment that kills the primary pool and waits for its row."""
    root = Path(__file__).resolve().parents[1]
    text = (root / "experiments" / "node-kill.yaml").read_text(encoding="utf-8")
    return text.replace("down_for: 8s", f"down_for: {down_for}")


@contextmanager
def world(
    folder: Path, database: str, replicas: int, more: Sequence[str] = (), env: Mapping[str, str] | None = None,
    down_for: str = "3s",
) -> Iterator[World]:  # fmt: skip
    """Run everything; it is ended by its pids."""
    with outside() as out:
        made = World(folder, out, database, replicas, more, env, down_for)
        try:
            for replica in made.replicas:
                replica.start()
            made.until_ready()
            made.until_leader()
            yield made
        finally:
            for replica in made.replicas:
                replica.stop()
            for node in made.nodes:
                node.stop()


class Poster:
    """Posts alerts without an end, each until a replica has taken it: what a load balancer and Alertmanager do."""

    def __init__(self, replicas: Sequence[Replica], every_s: float = 0.05, within_s: float = 3.0) -> None:
        """Take whom it posts to, how often, and how long it waits for an answer."""
        self.taken = 0
        self.statuses: dict[int, int] = {}
        """How many answers of each kind; 0 stands for none."""
        self.without_retry_after = 0
        self.answers: list[tuple[float, int]] = []
        """When (monotonic seconds), and the status."""
        self._replicas = replicas
        self._every_s, self._within_s = every_s, within_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        turn = 0
        while not self._ended.wait(self._every_s):
            body = {"version": "4", "alerts": [told("Storm", id=str(self.taken))]}
            status = 0
            while status != 200:
                turn += 1
                status = self._post(self._replicas[turn % len(self._replicas)], body)
                if status != 200:
                    time.sleep(0.02)
            self.taken += 1

    def _post(self, replica: Replica, body: object) -> int:
        status, answer = 0, None
        with suppress(OSError, HTTPException):
            answer = replica.ask("POST", HOOK, body, within_s=self._within_s)
            status = answer.status
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.answers.append((time.monotonic(), status))
        if answer and status == 503 and "retry-after" not in answer.headers:
            self.without_retry_after += 1
        return status


def told(name: str, *, ends: bool = False, **labels: str) -> dict[str, Any]:
    """Write an alert as it stands in a webhook."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "status": "resolved" if ends else "firing", "labels": {"alertname": name, **labels}, "annotations": {},
        "startsAt": "2026-01-01T00:00:00Z", "endsAt": now if ends else "0001-01-01T00:00:00Z", "generatorURL": "",
    }  # fmt: skip
