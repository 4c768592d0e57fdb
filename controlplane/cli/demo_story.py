"""The story `controlplane demo` tells, top to bottom; started by `cli/demo.py` alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from controlplane.cli.client import Client, connect
from controlplane.cli.drill import print_outcome
from controlplane.cli.fleet import write_page
from controlplane.cli.output import out, seconds
from controlplane.cli.plane import experiments_beside_code
from controlplane.cli.standing import standing_table
from controlplane.errors import ControlplaneError
from controlplane.target.lifeline import die_with_parent
from controlplane.target.report import Summary, summarise

EXPERIMENT = "node-kill"
STEADY_S = 6.0
"""Seconds of load before the fault; what the drill is compared with."""
AFTER_S = 4.0
"""Seconds of load after traffic is back."""
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0
DRAW_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class _Child:
    """A process of the demonstration."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """End it as Ctrl-C would, and make sure."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def run_demo(run_dir: Path, rate: float, port: int, *, keep: bool) -> int:
    """Tell the whole story.

    Args:
        run_dir: where everything is kept; drills of earlier runs stay on record.
        rate: requests per second.
        port: the console's port; 0 takes a free one.
        keep: leave the fleet and the control plane running.

    Returns:
        0 when the drill passed, else 1.

    Raises:
        ControlplaneError: when a part does not start.
    """
    page = write_page(run_dir)
    (run_dir / "logs").mkdir(exist_ok=True)
    with contextlib.ExitStack() as parts:
        start = partial(_start, run_dir / "logs", parts, keep=keep)
        out.print("[dim]starting the fleet: Envoy in front of 2 primary, 1 standby and 1 base endpoint ...[/]")
        fleet = start("fleet", ["up", "--run-dir", str(run_dir)])
        _wait(fleet, "every endpoint answers", lambda: _says(run_dir / "ready.json", fleet))
        plane = start("control-plane", ["serve", str(page), "--port", str(port),
                                        "--experiments", str(experiments_beside_code())])  # fmt: skip
        _wait(
            plane,
            "it serves",
            lambda: _says(run_dir / "state" / "lock", plane) and (run_dir / "state" / "url").exists(),
        )
        client = connect(run_dir / "state")
        _wait(plane, "it has seen the whole fleet", lambda: bool(_ready(client)))
        out.print(f"[dim]console: {client.url} (log in with the token in {run_dir / 'state' / 'token'})[/]")
        gateway = "http://" + (run_dir / "gateway" / "listener").read_text(encoding="utf-8").strip()
        begin = time.time()
        record = run_dir / "load" / f"requests-{datetime.fromtimestamp(begin, tz=UTC):%Y%m%dT%H%M%SZ}.jsonl"
        record.parent.mkdir(exist_ok=True)
        load = _start(run_dir / "logs", parts, "load", ["target", "load", gateway, "--rate", str(rate),
                                                        "--out", str(record), "--quiet"], keep=False)  # fmt: skip
        drill = _watch(client, load, record, begin)
        load.stop()
        _summary(client, drill, record, begin, run_dir)
        if keep:
            out.print(f"\nleft running: console [bold]{client.url}[/], gateway {gateway}")
            out.print(f"stop it with: kill {plane.process.pid} {fleet.process.pid}")
    return 0 if drill["outcome"] == "passed" else 1


def _start(logs: Path, parts: contextlib.ExitStack, name: str, arguments: list[str], *, keep: bool) -> _Child:
    """Start a part in a session of its own; unless it is kept, it ends with us, however we end."""
    log = logs / f"{name}.log"
    file: IO[bytes] = parts.enter_context(log.open("wb"))
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        start_new_session=True,
        preexec_fn=None if keep else partial(die_with_parent, os.getpid()),  # noqa: PLW1509 - no threads run here
    )
    child = _Child(name, process, log)
    parts.push(partial(_stop_unless_kept, child, keep))
    return child


def _stop_unless_kept(child: _Child, keep: bool, kind: type[BaseException] | None, *_: object) -> None:
    """Stop a part at the end; one that is to be kept is stopped only when the story broke off."""
    if not keep or kind is not None:
        child.stop()


def _wait(child: _Child, until: str, condition: Callable[[], bool]) -> None:
    """Wait for a part to come up.

    Raises:
        ControlplaneError: when it ended or took too long, with the last lines of its log.
    """
    deadline = time.monotonic() + READY_WITHIN_S
    while not condition():
        ended = child.process.poll()
        if ended is not None or time.monotonic() > deadline:
            tail = "\n".join(child.log.read_text(errors="replace").splitlines()[-6:])
            how = f"it ended with status {ended}" if ended is not None else f"not within {READY_WITHIN_S:g} s"
            raise ControlplaneError(
                f"the {child.name} did not start: waited until {until}", f"{how}\n{tail}", f"see {child.log}"
            )
        time.sleep(0.05)


def _says(path: Path, child: _Child) -> bool:
    """Tell whether a file carries this child's pid: one that an earlier process left does not count."""
    try:
        return str(child.process.pid) in path.read_text(encoding="utf-8")
    except OSError:
        return False


def _ready(client: Client) -> Any:
    try:
        return client.get("/readyz")["ready"]
    except ControlplaneError:
        return False


def _watch(client: Client, load: _Child, record: Path, begin: float) -> dict[str, Any]:
    """Let the load settle, run the drill, and draw what happens until a while after it has ended."""
    with Live(console=out, refresh_per_second=4, transient=True) as live:
        for _ in _draw(client, live, record, begin, "steady load", STEADY_S):
            pass
        drill: dict[str, Any] = client.post("/api/v1/drills", {"experiment": EXPERIMENT, "requested_by": "demo"})
        while drill["outcome"] == "running":
            for _ in _draw(client, live, record, begin, f"drill {EXPERIMENT} runs", DRAW_EVERY_S):
                pass
            drill = client.get(f"/api/v1/drills/{drill['id']}")
        for _ in _draw(client, live, record, begin, f"drill {drill['outcome']}", AFTER_S):
            pass
    if load.process.poll() is not None:
        raise ControlplaneError("the load generator ended early", f"status {load.process.poll()}", f"see {load.log}")
    return drill


def _draw(client: Client, live: Live, record: Path, begin: float, title: str, for_s: float) -> Iterator[None]:
    """Draw the standing and the load for a while."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        now = time.time()
        windows = {"last 2 s": (now - 2, now), "since the start": (begin, now + 1)}
        figures = summarise(record, windows) if record.exists() else {}
        live.update(Group(Text(f"\n{title}", "bold cyan"), standing_table(client.get("/api/v1/standing")),
                          _load_table(figures)))  # fmt: skip
        time.sleep(DRAW_EVERY_S)
        yield


def _load_table(figures: dict[str, Summary]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("users saw", "requests", "failed", "success", "p50", "p99"):
        table.add_column(column, justify="left" if column == "users saw" else "right")
    for name, seen in figures.items():
        failed = Text(str(seen.failed), "red" if seen.failed else "")
        success = f"{seen.success_ratio:.3%}" if seen.requests else "-"
        p50, p99 = (seconds(v) if seen.requests else "-" for v in (seen.p50_s, seen.p99_s))
        table.add_row(name, str(seen.requests), failed, success, p50, p99)
    return table


def _summary(client: Client, drill: dict[str, Any], record: Path, begin: float, run_dir: Path) -> None:
    """Print what users saw before, during and after, and what the control plane did, from what was written down."""
    end = time.time()
    at = {phase: datetime.fromisoformat(moment).timestamp() for phase, moment in drill["phases"].items()}
    windows = {"the whole run": (begin, end)}
    if "fault" in at:
        over = at.get("recovered", end)
        windows = {
            "before the fault": (begin, at["fault"]),
            "during (fault to recovered)": (at["fault"], over),
            "after": (over, end),
        } | windows
    figures = summarise(record, windows)
    receipts = client.get("/api/v1/receipts")
    summary = record.with_name(record.name.replace("requests", "summary").replace(".jsonl", ".json"))
    told = {name: {"from": windows[name][0], "to": windows[name][1], **asdict(seen)} for name, seen in figures.items()}
    text = json.dumps({"drill": drill, "receipt": receipts[:1], "windows": told}, indent=1)
    summary.write_text(text + "\n", encoding="utf-8")
    out.print()
    out.print(_load_table(figures))
    print_outcome(drill)
    out.print("written down:", style="bold")
    for what, where in (
        ("every request", record),
        ("these windows, in Unix time", summary),
        ("receipts, incidents, drills", run_dir / "state" / "controlplane.db"),
        ("journal", drill["journal"]),
        ("runbook", _first(run_dir / "runbooks", "P0-*.md")),
        ("alerts", _first(run_dir / "alerts", "*.rules.yml")),
        ("dashboard", _first(run_dir / "dashboards", "fleet-overview.json")),
    ):
        out.print(f"  {what:28} {where}", soft_wrap=True)


def _first(directory: Path, pattern: str) -> Path | str:
    return next(iter(sorted(directory.glob(pattern))), "not written")
