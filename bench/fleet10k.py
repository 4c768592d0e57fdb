"""What looking at a large fleet costs: probe, parse, windows and verdict for 100, 1,000 and 10,000 endpoints.

Each endpoint's metrics page (about 100 series, 5 histograms, 10 kB) is scraped every 5 s over a held connection; the
prober has one core, the simulated endpoints have the other. A look is everything from the request to the windows,
and its share of the verdict pass every 0.5 s. Endpoints share one page layout, as replicas of one engine do.

A process costs something that does not grow with the fleet: ticks of the timing wheel and of the pace, the verdict
passes, the garbage collector. Divided by 100 endpoints it looks like a cost per endpoint that falls with size. So the
figures name the two apart: a line through the smallest and the largest fleet, and how far the middle one lies off it.
"""

import statistics
from typing import Any

from bench.figures import Figure
from bench.prober import probed, simulated

COMMAND = "make bench ONLY=fleet10k"
SIZES = (100, 1_000, 10_000)
INTERVAL_S = 5
ROUNDS = 3
MANY = "10000 endpoints in 100 pools"


def run() -> list[Figure]:
    """Measure the sizes in turns, a few rounds, and a fleet of many pools."""
    rounds: dict[str, list[dict[str, Any]]] = {}
    plans = {f"{size} endpoints": {"endpoints": size} for size in SIZES}
    plans |= {MANY: {"endpoints": SIZES[-1], "pools": 100}}
    with simulated() as port:
        plan = {"port": port, "metrics_s": INTERVAL_S, "cpu": 0, "warm_s": 12, "seconds": 10}
        for _ in range(ROUNDS):
            for name, own in plans.items():
                rounds.setdefault(name, []).append(probed({**plan, **own}))
    if set().union(*(r["results"] for found in rounds.values() for r in found)) != {"ok"}:
        raise SystemExit(f"looks failed: {[r['results'] for found in rounds.values() for r in found]}")
    medians = {name: {key: statistics.median(r[key] for r in found) for key in _KEYS} for name, found in rounds.items()}
    figures: list[Figure] = []
    for size in SIZES:
        figures += _figures(size, medians[f"{size} endpoints"])
    many = medians[MANY]["pass_ms"]
    figures.append(Figure(f"{MANY}: verdict pass, CPU", round(many, 1), "ms", ROUNDS, COMMAND, "< 50 ms", many < 50))
    return [*figures, *_line([medians[f"{size} endpoints"]["cpu_share"] * 1e6 for size in SIZES])]


def _line(us: list[float]) -> list[Figure]:
    """Tell the process's own cost and that of an endpoint apart; `us` of CPU a second, by size."""
    least, middle, most = SIZES
    each = (us[2] - us[0]) / (most - least)
    fixed = us[0] - each * least
    off = us[1] / (fixed + each * middle) - 1
    return [
        Figure("the process itself, whatever the fleet", round(fixed / 1e4, 2), "% of a core", ROUNDS, COMMAND),
        Figure("each endpoint besides, CPU a second", round(each, 1), "us", ROUNDS, COMMAND),
        Figure(f"{middle} endpoints, off that line", round(off * 100, 1), "%", ROUNDS, COMMAND, "within 25 %",
               abs(off) < 0.25),
    ]  # fmt: skip


_KEYS = ("cpu_share", "us_a_look", "rss_mib", "lag_p99_ms", "pass_ms")


def _figures(size: int, found: dict[str, float]) -> list[Figure]:
    whole = size == SIZES[-1]

    def figure(what: str, value: float, unit: str, goal: float | None = None) -> Figure:
        met = value < goal if whole and goal is not None else None
        text = f"< {goal:g} {unit}" if met is not None else ""
        return Figure(f"{size} endpoints: {what}", round(value, 2), unit, ROUNDS, COMMAND, text, met)

    return [
        figure("share of one core", found["cpu_share"] * 100, "%", 100.0),
        figure("CPU an endpoint and second", found["cpu_share"] / size * 1e6, "us"),
        figure("CPU a look, everything in it", found["us_a_look"], "us"),
        figure("resident memory", found["rss_mib"], "MiB", 1024.0),
        figure("loop lag, p99", found["lag_p99_ms"], "ms", 250.0),
        figure("verdict pass, CPU", found["pass_ms"], "ms", 50.0),
    ]
