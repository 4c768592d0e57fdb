"""What a link's control file says: how the link behaves and until when. Pure; ``relay`` reads the file and obeys."""

import json
from dataclasses import dataclass

MODES = frozenset({"pass", "drop", "reset", "delay"})


@dataclass(frozen=True, slots=True)
class Fault:
    """How the link behaves, and until when."""

    mode: str = "pass"
    delay_s: float = 0.0
    until: float = 0.0
    """Unix seconds."""
    lease: str = ""


WELL = Fault()


def read_fault(text: str, now: float) -> Fault | None:
    """Read a control file.

    Args:
        text: its content.
        now: unix seconds.

    Returns:
        The fault in force, or None when the file counts for nothing: over, without an end, or not to be understood.
    """
    try:
        raw = json.loads(text)
        fault = Fault(
            str(raw["mode"]), float(raw.get("delay_ms", 0.0)) / 1000, float(raw["until"]), str(raw.get("lease", ""))
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    well_formed = fault.mode in MODES and fault.delay_s >= 0
    return fault if well_formed and fault.until > now else None
