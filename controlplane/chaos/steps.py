"""Telling each step of an experiment as it happens. Imported by Chaos Toolkit, in its own process.

Chaos Toolkit writes its journal at the end; a child that is killed leaves none. So every step is written to a pipe of
the runner's, one JSON line each, when it begins and when it ends. Only the standard library: the import is part of
every drill's time. Whoever reads the pipe believes none of it where safety is concerned.
"""

import json
import os
from typing import Any

PIPE = "CONTROLPLANE_STEPS_FD"
_LONGEST = 500


def before_activity_control(context: dict[str, Any]) -> None:
    """Tell that a step begins."""
    _tell({"step": "begin", "name": _name(context)})


def after_activity_control(context: dict[str, Any], state: dict[str, Any]) -> None:
    """Tell how a step ended."""
    failed = state.get("exception") or []
    why = str(failed[-1]).strip() if isinstance(failed, list) and failed else ""
    tolerated = state.get("tolerance_met")
    _tell(
        {
            "step": "end",
            "name": _name(context),
            "status": str(state.get("status", "")),
            "tolerance_met": tolerated if isinstance(tolerated, bool) else None,
            "why": why[:_LONGEST],
        }
    )


def _name(context: dict[str, Any]) -> str:
    return str(context.get("name", ""))[:_LONGEST]


def _tell(event: dict[str, Any]) -> None:
    """Write one line; a pipe that nobody reads any more is no reason to fail a step."""
    try:
        os.write(int(os.environ[PIPE]), json.dumps(event).encode() + b"\n")
    except (LookupError, ValueError, OSError):
        return
