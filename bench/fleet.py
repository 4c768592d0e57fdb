"""The real thing for benches: fleet, control plane and load as processes of their own, in a directory that goes."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

WITHIN_S = 60.0
SERVED_PORT = "0"
AHEAD = "-8"
"""The nice value of a session that goes first: six times the weight of one with none."""


@contextmanager
def process(log: Path, *arguments: str, apart: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command of ours, `apart` if asked; it is ended as Ctrl-C would end it."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "controlplane", *arguments], stdout=output, stderr=output, start_new_session=apart
        )
        if apart:
            _first(child.pid)
        try:
            yield child
        finally:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def running_fleet(*options: str, apart: bool = False) -> Iterator[Path]:
    """Run the reference fleet in a temporary directory, with more of the options of `controlplane up`.

    With `apart`, the gateway, the links and the cache come before the engines: in life they share no processor with
    them, and what contends for the engines' own is to slow the engines.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run_dir = Path(folder)
        with process(run_dir / "up.log", "up", "--run-dir", folder, *options, apart=apart) as child:
            wait_until((run_dir / "ready.json").exists, "the fleet is ready", child)
            if apart:
                engines = {one for pool in ("primary", "standby", "base") for one in pool_groups(run_dir, pool)}
                for other in psutil.Process(child.pid).children(recursive=True):
                    if other.pid not in engines:
                        _first(other.pid)
            yield run_dir


def _first(pid: int) -> None:
    """Have the kernel run a session before others that are as old; without autogroups, or rights, all stay equal."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(AHEAD)


def wait_until(
    condition: Callable[[], Any],
    what: str,
    child: "subprocess.Popen[bytes] | None" = None,
    within_s: float = WITHIN_S,
) -> Any:
    """Poll until something holds and return it; end the bench when it does not, or when the child has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        if child and child.poll() is not None:
            sys.exit(f"ended with {child.returncode} before {what}")
        time.sleep(0.005)
    sys.exit(f"not within {within_s:g} s: {what}")


def get(url: str, token: str = "") -> Any:
    """Return a JSON answer; None while there is none. Whatever is not open to anyone needs the state's token."""
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - always http://127.0.0.1
            return json.load(answer)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return None


def pool_groups(run_dir: Path, pool: str) -> list[int]:
    """Return the process groups of a pool's endpoints."""
    return [json.loads(p.read_text())["pgid"] for p in (run_dir / "nodes").glob(f"node-{pool}-*.json")]


def kill_pool(run_dir: Path, pool: str, down_for_s: float) -> float:
    """SIGKILL every endpoint of a pool and hold its nodes down; return the moment before the first kill (Unix)."""
    nodes = [json.loads(p.read_text()) for p in (run_dir / "nodes").glob(f"node-{pool}-*.json")]
    until = time.time() + down_for_s
    for node in nodes:
        (run_dir / "nodes" / f"{node['node']}.hold").write_text(json.dumps({"until": until, "lease": "bench"}))
    at = time.time()
    for node in nodes:
        os.killpg(node["pgid"], signal.SIGKILL)
    return at
