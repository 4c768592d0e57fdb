"""What each kind of fault can be told, within which bounds, and what it does when it is told nothing; pure.

The table is read when a fault is asked for, so that what is stored with a lease is whole, and when an experiment is
checked, so that a wrong word is found before anything is broken.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.chaos.fault import FaultKind, Setting
from controlplane.errors import UsageError


@dataclass(frozen=True, slots=True)
class Number:
    """A parameter that is a number, in the unit that its name says."""

    default: float
    least: float
    most: float
    text: str

    def read(self, given: object) -> float:
        """Return what was given as a number.

        Raises:
            ValueError: when it is none, or out of bounds.
        """
        if isinstance(given, int | float) and not isinstance(given, bool) and self.least <= given <= self.most:
            return float(given)
        raise ValueError(f"a number from {self.least:g} to {self.most:g}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter that is one of a few words."""

    default: str
    words: tuple[str, ...]
    text: str

    def read(self, given: object) -> str:
        """Return what was given as one of the words.

        Raises:
            ValueError: when it is none of them.
        """
        if isinstance(given, str) and given in self.words:
            return given
        raise ValueError(f"one of: {', '.join(self.words)}")


PARAMETERS: Mapping[FaultKind, Mapping[str, Number | Choice]] = {
    FaultKind.NODE_KILL: {},
    FaultKind.NETWORK_PARTITION: {
        "mode": Choice("drop", ("drop", "reset", "delay"), "lose everything, cut and refuse, or hold back"),
        "direction": Choice("both", ("both", "to", "from"), "which way: to the endpoint, from it, or both"),
        "peer": Choice(
            "everybody",
            ("everybody", "gateway", "controlplane"),
            "who is cut off from the endpoint: everybody, the gateway alone, or all but the gateway: who watches it",
        ),
        "delay_ms": Number(200, 1, 60_000, "what `delay` holds everything back for, in each direction"),
    },
    FaultKind.GPU_SATURATION: {
        "duty": Number(0.95, 0.05, 1, "share of the time that the device computes for us"),
        "memory_mib": Number(0, 0, 1_000_000, "memory held on the device"),
        "threads": Number(1, 1, 64, "loops for each of the endpoint's CPUs, where there is no GPU"),
        "device": Choice("auto", ("auto", "cpu", "cuda"), "the GPU where there is one, or one of the two"),
        "max_temperature_c": Number(85, 30, 110, "it stops when the GPU is hotter"),
        "max_power_ratio": Number(1.1, 0.1, 1.5, "it stops when the GPU draws more of its power limit"),
    },
    FaultKind.SLOW_TOKENS: {
        "pause_ms": Number(560, 10, 10_000, "how long the engine stands still each time"),
        "run_ms": Number(120, 10, 10_000, "how long it runs between"),
    },
    FaultKind.STALLED_ENGINE: {},
    FaultKind.QUEUE_FLOOD: {
        "requests": Number(300, 1, 2_000, "requests of ours in flight; beyond what the engine runs and queues"),
        "max_tokens": Number(256, 1, 4_096, "tokens that each asks for"),
        "shows": Choice(
            "refusals", ("refusals", "waiting"), "what it is proven by: others are refused, or have to wait"
        ),
    },
    FaultKind.MEMORY_PRESSURE: {
        "memory_mib": Number(512, 1, 1_000_000, "memory held"),
        "leave_mib": Number(1_024, 256, 1_000_000, "memory of the machine that is left, whatever was asked for"),
    },
    FaultKind.POD_EVICTION: {},
    FaultKind.DISK_FULL: {
        "reserve_kib": Number(1_024, 0, 1_000_000, "what is left free of the control plane's own file system"),
    },
}
"""By kind and name."""


def settled(kind: FaultKind, given: Mapping[str, object]) -> dict[str, Setting]:
    """Return every parameter of a kind: what was given, and the default of the rest.

    Raises:
        UsageError: when a name is not one of the kind's, or a value is not one it can have.
    """
    known = PARAMETERS[kind]
    for name in given:
        if name not in known:
            raise UsageError(
                f"{kind} has no parameter `{name}`",
                f"it has: {', '.join(known) or 'none'}",
                "correct it, or leave it out",
            )
    found: dict[str, Setting] = {}
    for name, parameter in known.items():
        try:
            found[name] = parameter.read(given[name]) if name in given else parameter.default
        except ValueError as error:
            raise UsageError(
                f"parameter `{name}` of {kind} is {given[name]!r}", f"expected {error}", f"it says: {parameter.text}"
            ) from error
    return found


def number(parameters: Mapping[str, Setting], kind: FaultKind, name: str) -> float:
    """Return one number of a lease; the default where an older lease does not have it."""
    value = parameters.get(name, PARAMETERS[kind][name].default)
    return float(value)


def word(parameters: Mapping[str, Setting], kind: FaultKind, name: str) -> str:
    """Return one word of a lease; the default where an older lease does not have it."""
    return str(parameters.get(name, PARAMETERS[kind][name].default))
