"""The ``warm`` command: has a running cache fetch the answers that will be asked for, before it is switched to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from controlplane.target.errors import TargetError
from controlplane.target.rundir import RunDir

TIMEOUT_S = 300.0
"""Longest wait: each answer that is not stored yet is asked of the fleet."""
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@dataclass(frozen=True, slots=True)
class WarmSpec:
    """What to warm, and with what."""

    run_dir: Path
    """The fleet's run directory."""
    top: int = 100
    """How many of the questions that the cache has seen asked most often."""
    prompts: Path | None = None
    """JSON Lines file of further request bodies, one a line; those with ``messages`` are chats."""


def run_warm(spec: WarmSpec) -> dict[str, int]:
    """Warm every cache of a fleet.

    Returns:
        Counts by outcome: ``asked``, ``known`` (stored already), ``filled``, ``failed``, ``refused`` (may not be
        stored).

    Raises:
        TargetError: when no fleet with a cache runs there, the file cannot be read, or a cache refuses.
    """
    run_dir = RunDir(spec.run_dir)
    requests = _requests(spec.prompts)
    total: dict[str, int] = {}
    for url, token in _caches(run_dir):
        body = json.dumps({"top": spec.top, "requests": requests}).encode()
        for name, count in _ask(f"{url}/cache/warm", token, body).items():
            total[name] = total.get(name, 0) + int(count)
    return total


def _caches(run_dir: RunDir) -> list[tuple[str, str]]:
    fix = "Start one with `controlplane up`, or name its --run-dir."
    try:
        token = run_dir.cache_token.read_text().strip()
        groups = json.loads(run_dir.discovery("cache").read_text())
        urls = [f"http://{target}" for group in groups for target in group["targets"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TargetError(f"no fleet with a cache runs on {run_dir.root}", str(error), fix) from error
    if not urls:
        raise TargetError(f"the fleet on {run_dir.root} has no cache", "its pool `cache` is empty", fix)
    return [(url, token) for url in urls]


def _requests(path: Path | None) -> list[dict[str, Any]]:
    if path is None:
        return []
    found = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            body = json.loads(line)
            if not isinstance(body, dict):
                raise TargetError(f"cannot read {path}:{number}", "it is no JSON object", "Write one request a line.")
            found.append({"path": CHAT if "messages" in body else COMPLETIONS, "body": body})
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot read {path}", str(error), "Write one request body as JSON a line.") from error
    return found


def _ask(url: str, token: str, body: bytes) -> dict[str, int]:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = Request(url, data=body, headers=headers)  # noqa: S310 - the fleet's own http:// address
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            found: dict[str, int] = json.loads(answer.read())
            return found
    except HTTPError as error:
        raise TargetError(
            f"the cache at {url} refused", f"status {error.code}: {error.read(200).decode(errors='replace')}",
            "Name the run directory of the fleet that runs now.",
        ) from error  # fmt: skip
    except (URLError, OSError) as error:
        raise TargetError(
            f"the cache at {url} does not answer", str(error), "Wait for its node to come back."
        ) from error
