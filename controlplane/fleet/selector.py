"""Label selectors as Kubernetes writes them: `app=vllm,tier in (gold, silver),!canary`; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_KEY = r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUALITY = re.compile(rf"(?P<key>{_KEY})\s*(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})")
_SET = re.compile(rf"(?P<key>{_KEY})\s+(?P<sign>in|notin)\s*\((?P<values>[^()]*)\)")
_EXISTS = re.compile(rf"(?P<sign>!?)\s*(?P<key>{_KEY})")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a selector; labels must meet all of them."""

    key: str
    values: frozenset[str] | None
    """The values it is about; None: any."""
    wanted: bool = True
    """False: the label must be absent, or have another value."""

    def met(self, labels: Mapping[str, str]) -> bool:
        """Tell whether labels meet it."""
        held = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return held is self.wanted


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """Read a selector; an empty one has no requirement and selects everything.

    Raises:
        ValueError: saying which part cannot be read.
    """
    parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
    return () if parts == [""] else tuple(_requirement(part) for part in parts)


def _requirement(part: str) -> Requirement:
    if found := _EQUALITY.fullmatch(part):
        return Requirement(found["key"], frozenset({found["value"]}), found["sign"] != "!=")
    if found := _SET.fullmatch(part):
        values = [value.strip() for value in found["values"].split(",")]
        if all(re.fullmatch(_VALUE, value) for value in values):
            return Requirement(found["key"], frozenset(values), found["sign"] == "in")
    elif found := _EXISTS.fullmatch(part):
        return Requirement(found["key"], None, not found["sign"])
    raise ValueError(f"`{part}` is no part of a label selector")


def selects(requirements: tuple[Requirement, ...], labels: Mapping[str, str]) -> bool:
    """Tell whether labels meet every requirement."""
    return all(requirement.met(labels) for requirement in requirements)


def exactly(labels: Mapping[str, str]) -> tuple[Requirement, ...]:
    """Return the requirements of a `matchLabels`."""
    return tuple(Requirement(key, frozenset({value})) for key, value in labels.items())
