"""What experiments may do: ask the running control plane. Imported by Chaos Toolkit, in its own process.

Little but the standard library: the import is part of every drill's time. Each function is bounded in time by itself,
since Chaos Toolkit bounds none, and fails with `ActivityFailed` so that the journal says why.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from chaoslib.exceptions import ActivityFailed

from controlplane.tls import client_context

__all__ = [
    "await_healed", "await_level", "await_pool", "await_row", "heal", "inject", "inject_rolling", "level_is",
    "level_stays", "service_answers",
]  # fmt: skip

_CALL_TIMEOUT_S = 90.0
"""Longest wait for one answer: a fault may need a minute to be in force and proven."""
_POLL_S = 0.1


def inject(
    kind: str,
    pool: str,
    endpoints: str | int = "100%",
    down_for: str = "10s",
    parameters: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Break some of a pool's endpoints at once, each under a stored lease.

    Args:
        kind: the fault kind, such as `node-kill`.
        pool: the pool to break.
        endpoints: the share of its endpoints, such as `50%`, at least one; or how many.
        down_for: the lease: when the fault ends by itself.
        parameters: how the fault is to be, by the names of its kind.

    Returns:
        The leases, each proven from outside.
    """
    if isinstance(endpoints, int):
        names = _names(pool)
        if len(names) < endpoints:
            raise ActivityFailed(f"pool {pool} has {len(names)} endpoints, not {endpoints}")
        return _inject(kind, pool, down_for, parameters, only=names[:endpoints])
    return _inject(kind, pool, down_for, parameters, endpoints=endpoints)


def inject_rolling(
    kind: str,
    pool: str,
    down_for: str = "10s",
    within_s: float = 300,
    pause_s: float = 0,
    parameters: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Break every endpoint of a pool, one after another, each once the one before has healed and is back.

    Args:
        kind: the fault kind, such as `node-kill`.
        pool: the pool to break.
        down_for: the lease of each.
        within_s: how long each may take to be back, in seconds.
        pause_s: how long each must have been back before the next is broken, in seconds.
        parameters: how the fault is to be.

    Returns:
        The leases, each proven from outside.
    """
    leases = []
    for number, name in enumerate(_names(pool)):
        time.sleep(pause_s if number else 0)
        leases += _inject(kind, pool, down_for, parameters, only=[name])
        if not await_healed(within_s) or not await_pool(pool, within_s):
            raise ActivityFailed(f"{name} was not back within {within_s:g} s; the others are left alone")
    return leases


def _inject(
    kind: str, pool: str, down_for: str, parameters: dict[str, Any] | None, **which: Any
) -> list[dict[str, Any]]:
    body = {"kind": kind, "pool": pool, "down_for": down_for, "parameters": parameters or {}, **which}
    leases: list[dict[str, Any]] = _call("POST", f"/api/v1/drills/{_drill()}/faults", body)["leases"]
    unproven = [lease["endpoint"]["name"] for lease in leases if lease["state"] != "proven"]
    if unproven:
        raise ActivityFailed(f"could not prove {kind} on {', '.join(unproven)}")
    return leases


def heal() -> list[str]:
    """End every fault of this drill now; faults that are over stay over."""
    healed: list[str] = _call("POST", f"/api/v1/drills/{_drill()}/heal", {})["healed"]
    return healed


def await_row(row: str, phase: str, within_s: float) -> bool:
    """Wait until a row of the matrix is in a phase.

    Args:
        row: such as `P0`.
        phase: such as `engaged` or `idle`.
        within_s: how long to wait, in seconds.

    Returns:
        True once it is; False when the time is over.
    """

    def is_so() -> bool:
        rows = _call("GET", "/api/v1/standing")["rows"]
        return any(r["row"]["level"] == row and r["phase"] == phase for r in rows)

    return _seen(is_so, within_s)


def await_level(level: str, within_s: float) -> bool:
    """Wait until this level, such as `none`, is in force: every row has settled; False when the time is over."""
    return _seen(lambda: level_is(level), within_s)


def await_pool(pool: str, within_s: float) -> bool:
    """Wait until every endpoint of a pool is up; False when the time is over."""
    return _seen(lambda: all(endpoint["up"] for endpoint in _pool(pool)["endpoints"]), within_s)


def await_healed(within_s: float) -> bool:
    """Wait until no fault of this drill is in force and none has left anything; False when the time is over."""
    return _seen(lambda: not any(lease["drill_id"] == _drill() for lease in _call("GET", "/api/v1/leases")), within_s)


def level_stays(level: str, for_s: float) -> bool:
    """Watch for a time; tell whether this level, such as `none`, was in force all the while, and still is after it."""
    return not _seen(lambda: not level_is(level), for_s)


def _seen(look: Callable[[], bool], within_s: float) -> bool:
    """Look again and again; tell whether it was so within a time.

    The last look begins when the time is over: this process may have stood still, or an answer have taken that long.
    """
    deadline = time.monotonic() + within_s
    while True:
        last = time.monotonic() >= deadline
        if look():
            return True
        if last:
            return False
        time.sleep(_POLL_S)


def level_is(level: str) -> bool:
    """Tell whether this level is in force, such as `none`."""
    return bool(_call("GET", "/api/v1/standing")["level"] == level)


def service_answers() -> bool:
    """Tell whether the gateway's last looks found a service that gives real completions."""
    pools = _call("GET", "/api/v1/standing")["pools"]
    return any(e["up"] is True and e["answer_s"] is not None
               for pool in pools if pool["name"] == "gateway" for e in pool["endpoints"])  # fmt: skip


def _names(pool: str) -> list[str]:
    return [endpoint["endpoint"]["name"] for endpoint in _pool(pool)["endpoints"]]


def _pool(name: str) -> dict[str, Any]:
    pools: list[dict[str, Any]] = _call("GET", "/api/v1/standing")["pools"]
    for pool in pools:
        if pool["name"] == name:
            return pool
    raise ActivityFailed(f"no pool {name}; there are: {', '.join(pool['name'] for pool in pools)}")


def _drill() -> str:
    return _setting("CONTROLPLANE_DRILL")


def _setting(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ActivityFailed(f"{name} is not set: start drills with `controlplane drill run`")
    return value


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's own setting
        _setting("CONTROLPLANE_URL") + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"authorization": f"Bearer {_setting('CONTROLPLANE_TOKEN')}", "content-type": "application/json"},
    )
    try:
        trusted = client_context() if request.type == "https" else None
        with urllib.request.urlopen(request, timeout=_CALL_TIMEOUT_S, context=trusted) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise ActivityFailed(f"{method} {path}: {error.read().decode(errors='replace')[:500]}") from error
    except (OSError, ValueError) as error:
        raise ActivityFailed(f"{method} {path}: {error}") from error
