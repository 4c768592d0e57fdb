"""What looking at a large fleet costs: probe, parse, windows and verdict for 100, 1,000 and 10,000 endpoints.

Each endpoint's metrics page (about 100 series, 5 histograms, 10 kB) is scraped every 5 s over a held connection; the
prober has one core, the simulated endpoints have the other. A look is everything from the request to the windows,
and its share of the verdict pass every 0.5 s. Endpoints share one page layout, as replicas of one engine do.
"""

from bench.figures import Figure
from bench.prober import probed, simulated

COMMAND = "make bench ONLY=fleet10k"
SIZES = (100, 1_000, 10_000)
INTERVAL_S = 5
ROUNDS = 3


def run() -> list[Figure]:
    """Measure each size, three times the largest."""
    figures: list[Figure] = []
    with simulated() as port:
        plan = {"port": port, "metrics_s": INTERVAL_S, "cpu": 0, "warm_s": 12, "seconds": 10}
        for size in SIZES:
            rounds = [probed({**plan, "endpoints": size}) for _ in range(ROUNDS if size == SIZES[-1] else 1)]
            found = {key: sorted(r[key] for r in rounds)[len(rounds) // 2] for key in _KEYS}
            if set().union(*(r["results"] for r in rounds)) != {"ok"}:
                raise SystemExit(f"looks failed: {[r['results'] for r in rounds]}")
            figures += _figures(size, found, len(rounds))
        many = probed({**plan, "endpoints": SIZES[-1], "pools": 100})
        figures.append(
            Figure("10000 endpoints in 100 pools: verdict pass, CPU", round(many["pass_ms"], 1), "ms", 1, COMMAND)
        )
    return figures


_KEYS = ("cpu_share", "us_a_look", "rss_mib", "lag_p99_ms", "pass_ms")


def _figures(size: int, found: dict[str, float], n: int) -> list[Figure]:
    whole = size == SIZES[-1]

    def figure(what: str, value: float, unit: str, goal: float | None = None) -> Figure:
        met = value < goal if whole and goal is not None else None
        text = f"< {goal:g} {unit}" if met is not None else ""
        return Figure(f"{size} endpoints: {what}", round(value, 2), unit, n, COMMAND, text, met)

    return [
        figure("share of one core", found["cpu_share"] * 100, "%", 100.0),
        figure("CPU an endpoint and second", found["cpu_share"] / size * 1e6, "us"),
        figure("CPU a look, everything in it", found["us_a_look"], "us"),
        figure("resident memory", found["rss_mib"], "MiB", 1024.0),
        figure("loop lag, p99", found["lag_p99_ms"], "ms", 250.0),
        figure("verdict pass, CPU", found["pass_ms"], "ms", 50.0),
    ]
