"""Panels of a signal: its value by pool, with the policy's levels as lines, beside the engine's own count; pure.

Also what every query starts with: the selectors by the variables of a dashboard. Called by the dashboards beside it.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.fleet.model import GATEWAY_POOL
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render import promql
from controlplane.render.dashboards.board import Variable
from controlplane.render.dashboards.palette import POOLS, levels_of
from controlplane.render.dashboards.panels import Override, Panel, dashed, lines, matching, target
from controlplane.signals.engines import names_for_rules
from controlplane.signals.sample import CATALOGUE, Direction, Signal, Unit
from controlplane.slo.threshold import Threshold

OF = 'service="$service"'
POOL = f'{OF}, pool=~"$pool"'
ENGINE = 'service=~"|${service:regex}", pool=~"$pool"'
"""Engine series; a scrape configuration for one service alone may leave that label out."""
ENDPOINT = f'{ENGINE}, endpoint=~"$endpoint"'
OURS = 'instance=~"$instance"'
"""Series of the control planes of the service that have no label for it."""

UNITS = {Unit.SECONDS: "s", Unit.RATIO: "percentunit", Unit.COUNT: "short", Unit.PER_SECOND: "short",
         Unit.CELSIUS: "celsius", Unit.WATTS: "watt"}  # fmt: skip
"""Grafana's names of the catalogue's units."""

TITLES = {
    "availability": "Availability",
    "latency_p99": "Request latency, P99",
    "ttft_p99": "Time to the first token, P99",
    "error_rate": "Error rate",
    "inter_token_latency_p99": "Time between tokens, P99",
    "cpu_utilization": "CPU",
    "memory_utilization": "Memory",
    "gpu_utilization": "GPU",
    "gpu_memory_utilization": "GPU memory",
    "kv_cache_utilization": "Key-value cache",
    "queue_depth": "Queue",
    "request_rate": "Requests",
    "tokens_rate": "Generated tokens",
}

_UNITS_OF = {"request_rate": "reqps", "tokens_rate": "suffix: tok/s"}
_MORE = {
    "queue_depth": "A queue that grows while tokens per second stand still is a pool at its end.",
    "tokens_rate": "Falling while requests run means the engines are stuck or preempting.",
}
_WHOLE = frozenset(
    (
        "availability", "cpu_utilization", "memory_utilization", "gpu_utilization", "gpu_memory_utilization",
        "kv_cache_utilization",
    )
)  # fmt: skip
"""Ratios that are drawn from 0 to 1; an error rate would be a flat line there."""


def service(policy: Policy) -> Variable:
    """Return the variable of the service, which begins with the policy's."""
    query = "label_values(controlplane_level, service)"
    return Variable("service", "Service", query, default=policy.service, several=False)


POOL_CHOICE = Variable("pool", "Pool", f"label_values(controlplane_verdict{{{OF}}}, pool)")
ENDPOINT_CHOICE = Variable("endpoint", "Endpoint", f"label_values(controlplane_endpoint_up{{{POOL}}}, endpoint)")
INSTANCE = Variable(
    "instance", "Control plane", f"label_values(controlplane_leader{{{OF}}}, instance)", hidden=True
)  # fmt: skip
GPU_POOLS = Variable(
    "gpu_pool", "Pools with GPUs",
    'label_values(DCGM_FI_DEV_GPU_UTIL{service=~"|${service:regex}"}, pool)', hidden=True,
)  # fmt: skip
"""Empty where no series of a GPU exists: the section of the GPUs has nothing to stand for then."""
CONSOLE = Variable(
    "console", "Console", f"label_values(controlplane_info{{{OF}}}, console)", several=False, hidden=True
)  # fmt: skip
GPU = 'service=~"|${service:regex}", pool=~"$gpu_pool"'


def signal(policy: Policy, name: str, *, engine: bool = True, pools: str = POOL) -> Panel:
    """Return a signal by pool over time.

    Args:
        policy: whose levels are drawn.
        name: a name of the catalogue that has a title.
        engine: whether the engine's own count stands beside it, dashed.
        pools: label matchers that choose the pools.
    """
    seen, threshold = CATALOGUE[name], policy.thresholds.get(name)
    targets = [target(f'max by (pool) (controlplane_signal_value{{{pools}, signal="{name}"}})', "{{pool}}")]
    own = engine_value(policy, name, ENGINE, "pool") if engine else None
    if own:
        targets.append(target(own, "{{pool}}, by the engine", "B"))
    return lines(
        TITLES[name], targets, _about(seen, threshold, own=bool(own)), unit=_UNITS_OF.get(name, UNITS[seen.unit]),
        steps=levels_of(seen, threshold), defaults={"min": 0, **({"max": 1} if name in _WHOLE else {})},
        custom=_room(seen, threshold), overrides=pool_looks(policy),
        thresholdsStyleMode="dashed" if threshold else "off",
    )  # fmt: skip


def by_endpoint(policy: Policy, name: str) -> Panel | None:
    """Return a signal of single endpoints over time, by their own series; None where the engine's cannot tell."""
    seen, threshold = CATALOGUE[name], policy.thresholds.get(name)
    own = engine_value(policy, name, ENDPOINT, "pool, endpoint")
    if own is None:
        return None
    levels = " The lines are the policy's levels, which are meant for a whole pool." if threshold else ""
    about = f"{seen.definition} By the engines' own series, each endpoint for itself.{levels}"
    return lines(
        TITLES[name], [target(own, "{{endpoint}}")], f"{about} {_MORE.get(name, '')}".strip(),
        unit=_UNITS_OF.get(name, UNITS[seen.unit]), steps=levels_of(seen, threshold),
        defaults={"min": 0, **({"max": 1} if name in _WHOLE else {})}, custom=_room(seen, threshold),
        thresholdsStyleMode="dashed" if threshold else "off",
    )  # fmt: skip


def engine_value(policy: Policy, name: str, where: str, by: str) -> str | None:
    """Return a signal by the engine's own series; None where they cannot tell.

    A server that has not failed yet exposes no count of failures; while it answers requests its error rate is 0.
    """
    names = names_for_rules(policy.fleet.engine)
    value = promql.engine_value(name, names, where, "$__rate_interval", by)
    if name == "error_rate" and value:
        answered = promql.engine_value("request_rate", names, where, "$__rate_interval", by)
        return f"({value}) or 0 * {promql.grouped(answered)}" if answered else value
    return value


def pool_looks(policy: Policy) -> list[Override]:
    """Colour series by pool, and dash what the engine counts itself."""
    pools = (GATEWAY_POOL, *policy.fleet.pools)
    colored = [matching(f"/^{name}\\b/", POOLS[name]) for name in pools if name in POOLS]
    return [*colored, dashed("/by the engine$/")]


def coded(metric: str, where: str, label: str, values: Sequence[str]) -> str:
    """Turn one-hot series into one number: the position of the value that is 1."""
    return " or ".join(f'{i} * {metric}{{{where}, {label}="{value}"}}' for i, value in enumerate(values))


def coded_over(metric: str, where: str, label: str, values: Sequence[str]) -> str:
    """Turn one-hot series into one number for each step of a curve: the highest position that was 1 in it."""
    each = (f'{metric}{{{where}, {label}="{value}"}}' for value in values)
    return " or ".join(f"{i} * ({at_most(series)})" for i, series in enumerate(each))


def at_most(series: str) -> str:
    """Return a gauge at its highest within each step of a curve, so that nothing short falls between two steps.

    Where a step is shorter than the time between two scrapes, the series itself stands in.
    """
    return f"max_over_time({series}[$__interval]) or {series}"


def at_least(series: str) -> str:
    """Return a gauge at its lowest within each step of a curve."""
    return f"min_over_time({series}[$__interval]) or {series}"


def _room(seen: Signal, threshold: Threshold | None) -> dict[str, Any]:
    """Leave room above the breach line, so that it is always in the picture."""
    if threshold is None or seen.worse is Direction.DOWN:
        return {}
    return {"axisSoftMax": round(threshold.breach * 1.25, 6)}


def _about(seen: Signal, threshold: Threshold | None, *, own: bool) -> str:
    said = [seen.definition]
    if threshold:
        said.append(
            f"Judged over {spell_duration(threshold.window)}; the lines are the policy's warn and breach levels."
        )
    if seen.name in _MORE:
        said.append(_MORE[seen.name])
    if own:
        said.append("Dashed: the engine's own count, endpoints merged.")
    return " ".join(said)
