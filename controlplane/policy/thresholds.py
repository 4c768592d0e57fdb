"""The page's `thresholds`: levels of signals, each in the unit its signal has. Called by `load`."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from controlplane.policy import quantity
from controlplane.policy.page import Page, Path, spell
from controlplane.policy.typed import Bad, is_mapping, read
from controlplane.signals.sample import CATALOGUE, Direction, Signal, Unit
from controlplane.slo.threshold import Threshold

_BY_UNIT: dict[Unit, Callable[[object], float]] = {
    Unit.SECONDS: lambda text: quantity.duration(text).total_seconds(),
    Unit.RATIO: quantity.ratio,
    Unit.COUNT: quantity.number,
    Unit.PER_SECOND: quantity.number,
    Unit.CELSIUS: quantity.number,
    Unit.WATTS: quantity.number,
}


def read_thresholds(page: Page, data: Any) -> dict[str, Threshold]:
    """Read every threshold, by the name of its signal."""
    found: dict[str, Threshold] = {}
    if not is_mapping(page, data, ("thresholds",)):
        return found
    page.check_keys(data, ("thresholds",), tuple(CATALOGUE))
    for name, node in data.items():
        if name in CATALOGUE and is_mapping(page, node, ("thresholds", name)):
            threshold = _threshold(page, CATALOGUE[name], node)
            if threshold:
                found[name] = threshold
    return found


def _threshold(page: Page, signal: Signal, node: Mapping[str, Any]) -> Threshold | None:
    path: Path = ("thresholds", signal.name)
    known = ("healthy", "warn", "breach", "window", "for", "min_samples")
    page.check_keys(node, path, known)
    for key in known[:5]:
        if key not in node:
            page.wrong(path, f"`{spell((*path, key))}` is missing", "this signal has no default", f"add `{key}:`")
            return None
    levels = [read_level(page, signal, node[key], (*path, key)) for key in ("healthy", "warn", "breach")]
    window = read(page, timedelta, node["window"], (*path, "window"))
    dwell = read(page, timedelta, node["for"], (*path, "for"))
    samples = read(page, int, node.get("min_samples", 1), (*path, "min_samples"))
    if None in levels or isinstance(window, Bad) or isinstance(dwell, Bad) or isinstance(samples, Bad):
        return None
    healthy, warn, breach = (level for level in levels if level is not None)
    ordered = sorted(levels) if signal.worse is Direction.UP else sorted(levels, reverse=True)  # type: ignore[type-var]
    if ordered != levels:
        direction = "rise" if signal.worse is Direction.UP else "fall"
        page.wrong(
            path, f"the levels of `{signal.name}` are out of order", f"from healthy to breach they must {direction}",
            "put them in order",
        )  # fmt: skip
        return None
    return Threshold(healthy, warn, breach, window, dwell, samples)


def read_level(page: Page, signal: Signal, node: Any, path: Path) -> float | None:
    """Read one level in the unit its signal has."""
    try:
        return _BY_UNIT[signal.unit](node)
    except ValueError as error:
        page.wrong(
            path, f"`{spell(path)}: {node}` has the wrong unit", f"{signal.name} is held in {signal.unit.spelled}",
            f"write {error}",
        )  # fmt: skip
        return None
