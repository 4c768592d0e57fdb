"""What the shell may complete: names that the running control plane knows, asked within a second; nothing otherwise."""

from pathlib import Path
from typing import Any

WITHIN_S = 1.0
LEVELS = ("P0", "P1", "P2")


def _ask(path: str) -> list[dict[str, Any]]:
    """Return a list of the API; an empty one when nobody answers: a shell waits for this."""
    import os
    from dataclasses import replace

    from controlplane.cli.client import connect
    from controlplane.cli.plane import DEFAULT_STATE
    from controlplane.errors import ControlplaneError

    try:
        state_dir = Path(os.environ.get("CONTROLPLANE_STATE_DIR", "") or DEFAULT_STATE)
        found: list[dict[str, Any]] = replace(connect(state_dir), timeout_s=WITHIN_S).get(path)
    except ControlplaneError:
        return []
    return found


def _beginning(names: list[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def levels(incomplete: str) -> list[str]:
    """Complete a row of the matrix."""
    return _beginning(list(LEVELS), incomplete)


def experiments(incomplete: str) -> list[str]:
    """Complete an experiment's name: of the server, or of the files here."""
    found = [one["name"] for one in _ask("/api/v1/experiments")]
    return _beginning(found or sorted(path.stem for path in Path("experiments").glob("*.yaml")), incomplete)


def pools(incomplete: str) -> list[str]:
    """Complete a pool's name."""
    return _beginning([one["pool"] for one in _ask("/api/v1/verdicts")], incomplete)


def drills(incomplete: str) -> list[str]:
    """Complete a drill's id, the newest first."""
    return _beginning([one["id"] for one in _ask("/api/v1/drills")], incomplete)


def incidents(incomplete: str) -> list[str]:
    """Complete an incident's id, the newest first."""
    return _beginning([one["incident"]["id"] for one in _ask("/api/v1/incidents?limit=50")], incomplete)


def runbooks(incomplete: str) -> list[str]:
    """Complete a runbook's name."""
    return _beginning([one["name"] for one in _ask("/api/v1/runbooks")], incomplete)
