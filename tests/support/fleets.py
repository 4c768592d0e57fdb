"""A reference fleet in processes of its own, for tests that need the whole of it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.processes import until

ROOT = Path(__file__).resolve().parents[2]
UP = """
import sys
from pathlib import Path
from controlplane.target.errors import TargetError
from controlplane.target.fleet import run_fleet
from controlplane.target.spec import CacheSpec, FleetSpec, GatewaySpec, PoolSpec
settings = eval(sys.argv[2])
try:
    sys.exit(run_fleet(FleetSpec(Path(sys.argv[1]), **settings)))
except TargetError as error:
    sys.exit(str(error))
"""
SMALL = '{"primary": PoolSpec(1, "base"), "cache": PoolSpec(1, "base", serves="cache")}'
"""The pools of a fleet that starts quickly."""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start Python in the repository's root."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM, within_s: float = 15.0) -> tuple[int, str]:
    """End a process; return its exit code and what it complained about."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=within_s)
    return process.returncode, errors


@contextmanager
def fleet(run_dir: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a fleet; each setting is the Python text of a field of ``FleetSpec``."""
    text = "dict(" + ", ".join(f"{name}={value}" for name, value in settings.items()) + ")"
    process = start(UP, str(run_dir), text)
    try:
        until(lambda: (run_dir / "ready.json").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process, json.loads((run_dir / "ready.json").read_text())
    finally:
        if process.poll() is None:
            end(process)


def node(run_dir: Path, name: str) -> dict[str, Any]:
    """Read who serves a node."""
    found: dict[str, Any] = json.loads((run_dir / "nodes" / f"node-{name}.json").read_text())
    return found


def kill(entry: dict[str, Any]) -> None:
    """SIGKILL a node's process group."""
    os.killpg(entry["pgid"], signal.SIGKILL)


def complete(
    url: str, headers: dict[str, str] | None = None, **body: Any
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Ask for a completion; return status, headers by lower-case name, and the decoded answer."""
    asked = {"model": "reference", "prompt": "why", "max_tokens": 4, "temperature": 0, **body}
    request = Request(f"{url}/v1/completions", json.dumps(asked).encode(), {"content-type": "application/json", **(headers or {})})  # noqa: E501, S310  # fmt: skip
    try:
        with urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, _lower(answer.headers), json.loads(answer.read())
    except HTTPError as error:
        raw = error.read()
        return error.code, _lower(error.headers), json.loads(raw) if raw.startswith(b"{") else {"raw": raw.decode()}


def page(url: str) -> str:
    """Get a page of text."""
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - always http://127.0.0.1
        text: str = answer.read().decode()
    return text


def metric(text: str, *parts: str) -> float:
    """Add up the samples whose name and labels hold every part."""
    lines = [line for line in text.splitlines() if not line.startswith("#") and all(part in line for part in parts)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def write(path: Path, content: dict[str, Any]) -> None:
    """Write a control file whole."""
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content))
    beside.replace(path)


def route(run_dir: Path, **weights: int) -> None:
    """Move the gateway's traffic, as the control plane does."""
    path = run_dir / "gateway" / "xds" / "rds.json"
    document = json.loads(path.read_text())
    (host,) = document["resources"][0]["virtual_hosts"]
    for entry in host["routes"][0]["route"]["weighted_clusters"]["clusters"]:
        entry["weight"] = weights.get(entry["name"], 0)
    write(path, document)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
