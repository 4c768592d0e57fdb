"""Real processes for journeys: a fleet, a control plane, a load; each is stopped by its pid.

Everything started while `nothing_left_behind` is open carries a mark in its environment, which children inherit: at the
end it is looked for in the whole process table, so that nothing hides by changing its parent or its session.
"""

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
from prometheus_client.parser import text_string_to_metric_families

from controlplane.target.lifeline import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = ROOT / "experiments"
REFERENCE_PAGE = ROOT / "controlplane" / "policy" / "reference.yaml"
MARK = "CONTROLPLANE_TEST_MARK"
PRIMARIES = ("primary-0", "primary-1")
QUICK_HOLD = "200ms"
"""How long a step of the way back is held where a test is not about the steps."""
ANSWER_WITHIN_S = 15.0
"""How long a client of the load waits for its answer: longer than a machine stands still, shorter than a hang."""

_seen_ports: set[int] = set()
_seen_dirs: set[Path] = set()
_killed: set[int] = set()
"""Processes that a test killed: what they were writing then is left beside its place until it is written anew."""


T = TypeVar("T")


def until(found: Callable[[], T], within_s: float = 30.0, what: str = "it") -> T:
    """Ask again and again until the answer is true; return it. The last look begins after the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        # Before the look: a machine that stands still while it looks makes the answer old, not wrong.
        late = time.monotonic() >= deadline
        if answer := found():
            return answer
        assert not late, f"not within {within_s:g} s: {what}"
        time.sleep(0.02)


def parse_time(text: str) -> datetime:
    """Read a time as the API writes it."""
    return datetime.fromisoformat(text)


# -- the command line, from start to end -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Return our environment with wide, plain output and no settings of the person who runs the tests."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("CONTROLPLANE_") or k == MARK}
    return {**ours, "COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb", "PYTHONWARNINGS": "default", **more}


def controlplane(
    *arguments: str | Path, cwd: Path = ROOT, within_s: float = 60.0, env: Mapping[str, str] | None = None
) -> Done:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "controlplane", *map(str, arguments)],
        cwd=cwd, env=environment(**(env or {})), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=within_s, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """One process of ours that goes on until it is stopped; what it prints goes to a file."""

    stop_within_s = 15.0
    """How long it may take to stop."""

    def __init__(
        self, arguments: Sequence[str | Path], log: Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*map(str, arguments)],
                cwd=cwd, env=environment(**(env or {})), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - the tests run no threads then
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self.process.poll() is not None

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, found: Callable[[], T], what: str, within_s: float = 60.0) -> T:
        """Wait for something this process does; fail at once, with what it said, when it ends instead."""

        def look() -> T:
            assert not self.ended, f"it ended with status {self.process.returncode} before {what}:\n{self.said}"
            return found()

        return until(look, within_s, what)

    def stop(self, sign: int = signal.SIGTERM) -> int:
        """End it and return its exit status; one that has ended already is left alone."""
        if not self.ended:
            self.process.send_signal(sign)
            try:
                self.process.wait(self.stop_within_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"it did not stop within {self.stop_within_s:g} s:\n{self.said}") from None
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL it alone, as the kernel's out-of-memory killer would."""
        self.process.kill()
        self.process.wait()
        _killed.add(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def command(*arguments: str | Path) -> list[str | Path]:
    """Return a `controlplane` command line."""
    return [sys.executable, "-m", "controlplane", *arguments]


# -- HTTP --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


def ask(
    url: str, method: str = "GET", body: object = None, headers: Mapping[str, str] | None = None, within_s: float = 10.0
) -> Answer:
    """Send one request; an error status is an answer like any other."""
    address = urlsplit(url)
    path = (address.path or "/") + (f"?{address.query}" if address.query else "")
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=within_s)) as connection:
        payload = None if body is None else json.dumps(body)
        sent = {"content-type": "application/json"} if payload else {}
        connection.request(method, path, payload, {**sent, **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on, and that no client is given by chance.

    It stays ours until this process ends: a suite beside this one does not take it before it is listened on.
    """
    for port in range(32_100, 32_700):
        if port not in _seen_ports and _claim(port) and not listens(port):
            _seen_ports.add(port)
            return port
    raise AssertionError("no port is free")


def _claim(port: int) -> bool:
    """Lock a port for as long as we live; False when another suite of this user has it."""
    try:
        fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _port_locks() -> int:
    """Open the file whose every byte stands for a port; once, for closing it anywhere would drop every lock."""
    path = Path(tempfile.gettempdir()) / f"controlplane-test-ports-{os.getuid()}"
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def listens(port: int) -> bool:
    """Tell whether something accepts connections on a port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# -- the fleet ---------------------------------------------------------------------------------------------------------


class Fleet(Running):
    """`controlplane up`: a gateway and four endpoints."""

    def __init__(self, run_dir: Path, hold: str = QUICK_HOLD) -> None:
        self.run_dir = run_dir
        self.page = run_dir / "controlplane.yaml"
        run_dir.mkdir(parents=True, exist_ok=True)
        _seen_dirs.add(run_dir)
        if not self.page.exists():
            self.page.write_text(reference_page(hold), encoding="utf-8")
        super().__init__(command("up", "--run-dir", run_dir), run_dir.parent / f"{run_dir.name}-up.log")
        try:
            self.until((run_dir / "ready.json").exists, "the fleet is ready")
        except AssertionError:
            self.stop()
            raise
        ready = json.loads((run_dir / "ready.json").read_text(encoding="utf-8"))
        self.gateway: str = ready["gateway"]
        self.endpoints: dict[str, str] = ready["endpoints"]
        for url in (self.gateway, ready["admin"], *self.endpoints.values()):
            _seen_ports.add(urlsplit(url).port or 0)

    def node(self, endpoint: str) -> dict[str, Any]:
        """Return what an endpoint's supervisor says of its process."""
        found: dict[str, Any] = json.loads((self.run_dir / "nodes" / f"node-{endpoint}.json").read_text())
        return found

    def holds(self) -> list[Path]:
        """Return the hold files there are."""
        return sorted((self.run_dir / "nodes").glob("*.hold"))

    def kill_nodes(self, endpoints: Sequence[str] = PRIMARIES, held_for_s: float = 3.0) -> float:
        """SIGKILL the process groups of endpoints from outside and hold them down; return when (Unix seconds)."""
        nodes = [self.node(name) for name in endpoints]
        for node in nodes:
            hold = self.run_dir / "nodes" / f"{node['node']}.hold"
            beside = hold.with_suffix(".hold.new")
            beside.write_text(json.dumps({"until": time.time() + held_for_s, "lease": "test"}), encoding="utf-8")
            beside.replace(hold)
        at = time.time()
        for node in nodes:
            os.killpg(node["pgid"], signal.SIGKILL)
        return at

    def release(self) -> None:
        """Let every held node come back."""
        for hold in self.holds():
            hold.unlink(missing_ok=True)

    def until_back(self, endpoints: Sequence[str] = PRIMARIES, within_s: float = 20.0) -> None:
        """Wait until endpoints listen again."""
        ports = [urlsplit(self.endpoints[name]).port or 0 for name in endpoints]
        self.until(lambda: all(map(listens, ports)), f"{', '.join(endpoints)} are back", within_s)


def reference_page(hold: str = QUICK_HOLD) -> str:
    """Return the policy page that `controlplane up` writes, with another hold on the way back."""
    text = REFERENCE_PAGE.read_text(encoding="utf-8")
    assert "hold: 2s" in text
    return text.replace("hold: 2s", f"hold: {hold}")


def quick_experiments(directory: Path, down_for: str) -> Path:
    """Write the node-kill experiment with another lease, and return the directory it is in."""
    directory.mkdir()
    text = (EXPERIMENTS / "node-kill.yaml").read_text(encoding="utf-8")
    assert "down_for: 8s" in text
    (directory / "node-kill.yaml").write_text(text.replace("down_for: 8s", f"down_for: {down_for}"), encoding="utf-8")
    return directory


# -- the control plane -------------------------------------------------------------------------------------------------


class Plane(Running):
    """`controlplane serve` on a policy page."""

    def __init__(
        self,
        page: Path,
        experiments: Path = EXPERIMENTS,
        state: Path | None = None,
        database: str = "",
        more: Sequence[str | Path] = (),
    ) -> None:
        self.state = state or page.parent / "state"
        _seen_dirs.add(page.parent)
        line = command("serve", page, "--port", "0", "--state-dir", self.state, "--experiments", experiments)
        line += [*(("--database", database) if database else ()), *more]
        super().__init__(line, page.parent.parent / f"{page.parent.name}-{self.state.name}-serve.log")
        try:
            self.until(lambda: str(self.pid) == _read(self.state / "lock") and _read(self.state / "url"), "it serves")
        except AssertionError:
            self.stop()
            raise
        self.url = _read(self.state / "url")
        self.token = _read(self.state / "token")
        _seen_ports.add(urlsplit(self.url).port or 0)

    def ask(self, path: str, method: str = "GET", body: object = None, token: str | None = None) -> Answer:
        """Send one request; the operator's token goes with it unless another, or an empty one, is given."""
        token = self.token if token is None else token
        return ask(self.url + path, method, body, {"authorization": f"Bearer {token}"} if token else {})

    def get(self, path: str) -> Any:
        """Return what a path says."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.json

    def standing(self) -> dict[str, Any]:
        """Return how the service stands."""
        found: dict[str, Any] = self.get("/api/v1/standing")
        return found

    def until_ready(self) -> None:
        """Wait until it has seen the whole fleet, and found it well."""

        def well() -> bool:
            standing = self.standing()
            up = [e["up"] for pool in standing["pools"] for e in pool["endpoints"]]
            return bool(up) and all(up) and self.ask("/readyz").status == 200

        self.until(well, "it has seen the whole fleet")

    def until_open(self, experiment: str) -> None:
        """Wait until a drill may start: on a busy machine a late probe closes a gate for seconds."""

        def open_now() -> bool:
            refused: list[str] = self.get(f"/api/v1/experiments/{experiment}/preview")["refused"]
            return not refused

        self.until(open_now, f"the gates of {experiment} are open")

    def until_level(self, level: str, within_s: float = 30.0) -> dict[str, Any]:
        """Wait for a level with every row at rest, or engaged; return the standing."""

        def settled() -> dict[str, Any] | None:
            standing = self.standing()
            phases = {row["phase"] for row in standing["rows"]}
            return standing if standing["level"] == level and not phases & {"engaging", "releasing"} else None

        found = self.until(settled, f"level {level}", within_s)
        assert found is not None
        return found

    def until_proven(self, leases: int = 2) -> list[dict[str, Any]]:
        """Wait until so many faults are in force and proven; return their leases."""

        def proven() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self.get("/api/v1/leases")
            return found if len(found) == leases and all(lease["state"] == "proven" for lease in found) else []

        return self.until(proven, f"{leases} faults are in force")

    def metrics(self) -> "Series":
        """Return what `/metrics` says."""
        return Series(self.ask("/metrics").text)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the database behind its back; it may be dead."""
        with closing(sqlite3.connect(f"file:{self.state / 'controlplane.db'}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()


class Series:
    """A page of metrics."""

    def __init__(self, text: str) -> None:
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return the one value of a series whose labels hold these; None when there is no such series."""
        found = [v for (n, have), v in self.samples.items() if n == name and labels.items() <= set(have)]
        assert len(found) < 2, f"{name} {labels} names {len(found)} series"
        return found[0] if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


# -- the load ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the load, as its own record says."""

    intended: float
    """Unix seconds."""
    done: float
    status: int
    served_by: str | None
    level: str | None
    error: str | None


class Load(Running):
    """`controlplane target load`: requests at a steady rate, each on record.

    Its clients wait long: what is lost, refused or cut is a failure, a machine that stands still for a while is none.
    """

    stop_within_s = 45.0
    """Longer than its last request may wait."""

    def __init__(self, gateway: str, record: Path, rate: float = 100.0) -> None:
        self.record = record
        line = command("target", "load", gateway, "--rate", str(rate), "--max-tokens", "4", "--out", record, "--quiet")
        line += ["--timeout", str(ANSWER_WITHIN_S)]
        super().__init__(line, record.with_suffix(".log"))

    def requests(self) -> list[Request]:
        """Return every request on record; a line that is still being written is left out."""
        found = []
        for line in _read(self.record).splitlines():
            with suppress(ValueError):
                raw = json.loads(line)
                found.append(Request(**{name: raw[name] for name in Request.__slots__}))
        return found


# -- nothing is left ---------------------------------------------------------------------------------------------------


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Mark every process that is started from here on; at the end, none of them may live, listen or have left parts."""
    mark, before, theirs = uuid4().hex, os.environ.get(MARK), set(_seen_ports)
    os.environ[MARK] = mark
    try:
        yield
    finally:
        if before is None:
            del os.environ[MARK]
        else:
            os.environ[MARK] = before
    deadline = time.monotonic() + 5.0
    while (living := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = [f"{process.pid} {_command_line(process)}" for process in living]
    for process in living:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert not names, f"processes were left running: {names}"
    # What was there before belongs to whoever looks after all this: a suite beside this one, or what they share.
    assert left_listening(_seen_ports - theirs, mark) == []
    assert [str(part) for directory in _seen_dirs for part in parts(directory)] == []


def marked(mark: str) -> list[psutil.Process]:
    """Return the living processes that carry a mark, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def left_listening(ports: set[int], mark: str) -> list[str]:
    """Return who listens on ports of ours; what carries another mark is another suite, on a port that we gave up."""
    found = []
    for held in psutil.net_connections("tcp"):
        port = held.laddr.port if held.laddr else 0
        if held.status == psutil.CONN_LISTEN and port in ports and _mark_of(held.pid) in (None, mark):
            found.append(f"{port} of process {held.pid}")
    return found


def _mark_of(pid: int | None) -> str | None:
    with suppress(psutil.Error, OSError):
        return psutil.Process(pid).environ().get(MARK) if pid else None
    return None


def gone(process: psutil.Process) -> bool:
    """Tell whether a process has ended; one that waits for its parent to notice has."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(gone)"


def parts(directory: Path) -> list[Path]:
    """Return files that somebody who was not killed wrote beside their place and never put into it."""
    if not directory.exists():
        return []
    killed = tuple(f".{pid}." for pid in _killed)
    files = [p for p in directory.rglob("*") if p.is_file() and not any(pid in p.name for pid in killed)]
    return [p for p in files if p.name.endswith((".new", ".part", ".tmp")) or p.name.startswith(".")]


def seconds_between(before: str, after: str) -> float:
    """Return the seconds from one time of the API to another."""
    return (parse_time(after) - parse_time(before)) / timedelta(seconds=1)
