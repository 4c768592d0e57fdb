"""Comparing a live metrics page with what we read from it: which signals it tells, which names on it are dead; pure.

Called by `controlplane check --live`. A rule on a name that no longer exists is always quiet: that is found here and
not in the first incident.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.probes.metrics import read_page
from controlplane.signals.engines import EngineNames, recognise
from controlplane.signals.sample import CATALOGUE, Fold

_NAME = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)[{ ]", re.MULTILINE)
_ENDS = ("_bucket", "_sum", "_count", "_created", "_total")


@dataclass(frozen=True, slots=True)
class Contract:
    """One page against the table of its engine."""

    engine: str
    """Whose page it is; empty when it is no engine's that we know."""
    told: tuple[str, ...] = ()
    """Signals that the page tells."""
    lacking: tuple[str, ...] = ()
    """Signals that this engine can tell and this page does not: they stay unknown."""
    old: Mapping[str, str] | None = None
    """Old names on the page, with what took their place; empty where nothing did."""
    problems: tuple[str, ...] = ()
    """What is wrong, each in one line."""

    @property
    def ok(self) -> bool:
        """Tell whether nothing is wrong."""
        return not self.problems


def inspect(content: bytes, named: EngineNames | None) -> Contract:
    """Compare a page with its engine's table.

    Args:
        content: the page.
        named: the engine that the policy names; None lets the page say whose it is.
    """
    found = recognise(content)
    engine = named or found
    if engine is None:
        return Contract("", problems=("no engine that we know exposes such a page: every signal of it is unknown",))
    try:
        page = read_page(content, engine)
    except ValueError as error:
        return Contract(engine.name, problems=(f"it cannot be read: {error}",))
    keys = {*page.counters, *page.gauges, *page.histograms}
    can = {*engine.counters, *engine.gauges, *engine.histograms}
    own = {key for key in can if not key.startswith("gpu")}  # GPU names stand on an engine's page by courtesy.
    told = tuple(name for name in CATALOGUE if _reads(name) <= keys)
    lacking = tuple(name for name in CATALOGUE if _reads(name) <= own and not _reads(name) <= keys)
    families = {_family(name.decode()) for name in _NAME.findall(content)}
    old = {name: new for name, new in engine.renamed.items() if _family(name) in families}
    problems = []
    if found is not None and named is not None and found is not named and not keys:
        problems.append(f"the policy says it is {named.name}, and it looks like {found.name}")
    problems += [f"{name} is unknown: {_names(name, engine)} is not on the page" for name in lacking]
    return Contract(engine.name, told, lacking, old, tuple(problems))


def on_pages(engine: EngineNames) -> tuple[str, ...]:
    """Return the signals that an engine's page can tell."""
    can = {*engine.counters, *engine.gauges, *engine.histograms}
    return tuple(name for name in CATALOGUE if _reads(name) <= can)


def _reads(signal: str) -> frozenset[str]:
    """Return the keys of a page that a signal is read from."""
    if signal == "error_rate":
        return frozenset({"requests", "server_errors"})
    if CATALOGUE[signal].fold is Fold.OWN:
        return frozenset({"generated_tokens", "requests_running"} if signal == "token_progress" else {"(looks)"})
    return frozenset({CATALOGUE[signal].key})


def _names(signal: str, engine: EngineNames) -> str:
    """Return the names that a signal would be read from."""
    every = {**engine.counters, **engine.gauges, **engine.histograms}
    wanted = (way[0].name for key in sorted(_reads(signal)) if key in every for way in every[key].ways)
    return " or ".join(dict.fromkeys(wanted))


def _family(name: str) -> str:
    for end in _ENDS:
        name = name.removesuffix(end)
    return name
