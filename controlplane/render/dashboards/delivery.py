"""What is handed to a Grafana, and whether it has it already; pure. Called by `runtime/grafana`."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def stamped(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dashboard whose description ends with a fingerprint of all of it.

    By it a dashboard that has lost a key since is told from one to which a newer Grafana has added its defaults.
    """
    text = json.dumps(dashboard, sort_keys=True, separators=(",", ":"))
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    return {**dashboard, "description": f"{dashboard.get('description', '')} [{mark}]".strip()}


def holds(stored: Any, wanted: Any) -> bool:
    """Tell whether what a Grafana has stored is what is wanted.

    A Grafana adds keys with its defaults and raises the version of the schema; it does not change what it was given.

    Args:
        stored: the dashboard (or a part of it) as the Grafana gives it.
        wanted: the dashboard (or that part) as `stamped` gives it.
    """
    if isinstance(wanted, Mapping):
        if not isinstance(stored, Mapping):
            return False
        return all(_has(stored, key, value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(stored, list) or len(stored) != len(wanted):
            return False
        return all(map(holds, stored, wanted))
    return bool(stored == wanted) and isinstance(stored, bool) is isinstance(wanted, bool)


def _has(stored: Mapping[str, Any], key: str, value: Any) -> bool:
    if key == "schemaVersion":
        return isinstance(stored.get(key), int) and stored[key] >= value
    if value is None:
        return stored.get(key) is None
    return key in stored and holds(stored[key], value)
