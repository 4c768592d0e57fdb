"""What a link's control file says: how the link behaves and until when. Pure; ``relay`` reads the file and obeys."""

import json
from dataclasses import dataclass

MODES = frozenset({"pass", "drop", "reset", "delay"})
DIRECTIONS = frozenset({"both", "to", "from"})
EVERYBODY, GATEWAY, OTHERS = "everybody", "gateway", "controlplane"
PEERS = frozenset({EVERYBODY, GATEWAY, OTHERS})
"""Who can be cut off. ``controlplane`` is whoever does not come as the gateway: what watches the endpoint."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How the link behaves, and until when."""

    mode: str = "pass"
    delay_s: float = 0.0
    until: float = 0.0
    """Unix seconds."""
    lease: str = ""
    direction: str = "both"
    """``to`` the endpoint, ``from`` it, or ``both``; a cut (``reset``) has no direction."""
    peer: str = EVERYBODY

    def hits(self, peer: str) -> bool:
        """Tell whether the fault breaks the link of a peer: the gateway's, or everybody else's."""
        return self.peer in (EVERYBODY, peer)

    def loses(self, *, downward: bool) -> bool:
        """Tell whether what flows this way is lost; ``downward`` is from the endpoint to the client."""
        return self.mode == "drop" and self.direction != ("to" if downward else "from")

    def holds_s(self, *, downward: bool) -> float:
        """Return the seconds that what flows this way is held back."""
        return 0.0 if self.direction == ("to" if downward else "from") else self.delay_s


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
            str(raw["mode"]), float(raw.get("delay_ms", 0.0)) / 1000, float(raw["until"]), str(raw.get("lease", "")),
            str(raw.get("direction", "both")), str(raw.get("peer", EVERYBODY)),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    well_formed = fault.mode in MODES and fault.direction in DIRECTIONS and fault.peer in PEERS and fault.delay_s >= 0
    return fault if well_formed and fault.until > now else None
