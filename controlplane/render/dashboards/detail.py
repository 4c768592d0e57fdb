"""Endpoint and GPU detail: which endpoint, which machine, which GPU; pure. Called by `collection`."""

from collections.abc import Iterator

from controlplane.fleet.model import CACHE
from controlplane.policy.model import Policy
from controlplane.render.dashboards import readings
from controlplane.render.dashboards.board import Board, Section, Shelf
from controlplane.render.dashboards.gpus import gpus_in_detail
from controlplane.render.dashboards.overview import DEGRADED, FAULT, endpoints_over_time
from controlplane.render.dashboards.palette import ALARM
from controlplane.render.dashboards.panels import (
    Panel,
    column,
    dashed,
    in_unit,
    lines,
    mapped,
    now,
    stat,
    table,
    target,
)
from controlplane.render.dashboards.readings import ENDPOINT, POOL, by_endpoint, engine_value, signal

UID = "controlplane-endpoint-detail"

_FELT = ("latency_p99", "ttft_p99", "inter_token_latency_p99", "error_rate")
_LEFT = ("requests_running", "queue_depth", "kv_cache_utilization", "tokens_rate", "request_rate")
_UP = ((0, "down", "red"), (1, "up", "green"))


def board(policy: Policy) -> Board:
    """Return the detail of the endpoints of a policy's service."""
    felt = [panel for name in _FELT if (panel := by_endpoint(policy, name))]
    left = [panel for name in _LEFT if name in readings.TITLES and (panel := by_endpoint(policy, name))]
    sections = [
        Section("Endpoints", (Shelf(8, ((10, _table(policy)), (14, endpoints_over_time()))),)),
        Section("What users of each endpoint feel", tuple(_in_rows(felt, 2))),
        Section("What each endpoint has left", tuple(_in_rows([*left, _tokens(policy)], 3))),
        Section(
            "Processes and machines",
            (
                Shelf(7, ((8, _cpu()), (8, _memory()), (8, _files()))),
                Shelf(
                    7,
                    (
                        (12, signal(policy, "cpu_utilization", engine=False)),
                        (12, signal(policy, "memory_utilization", engine=False)),
                    ),
                ),
            ),
        ),
        gpus_in_detail(policy),
    ]
    if CACHE in policy.fleet.pools:
        sections.insert(3, Section("Response cache", (Shelf(7, tuple((8, panel) for panel in _cache())),)))
    return Board(
        UID,
        "Endpoint and GPU detail",
        "Which endpoint, machine or GPU it is: every endpoint by its own series. They need the labels `pool` and "
        "`endpoint`, which the fleet's file_sd lists carry.",
        tuple(sections),
        (
            readings.service(policy), readings.POOL_CHOICE, readings.ENDPOINT_CHOICE, readings.INSTANCE,
            readings.GPU_POOLS, readings.CONSOLE,
        ),
        (DEGRADED, FAULT),
    )  # fmt: skip


def _in_rows(panels: list[Panel], beside: int) -> Iterator[Shelf]:
    """Put panels into shelves, so many beside each other."""
    for first in range(0, len(panels), beside):
        shelf = panels[first : first + beside]
        yield Shelf(7, tuple((24 // len(shelf), panel) for panel in shelf))


def _table(policy: Policy) -> Panel:
    """Return every endpoint in one line."""
    up = f'controlplane_endpoint_up{{{POOL}, endpoint=~"$endpoint"}}'
    queries = [now(f"max by (pool, endpoint) ({up})", "", "A", form="table")]
    shown, looks = {"pool": "Pool", "endpoint": "Endpoint", "Value #A": "State"}, [column("State", *mapped(_UP))]
    wanted = {"latency_p99": ("P99", "s"), "requests_running": ("Running", "short"), "queue_depth": ("Queue", "short"),
              "kv_cache_utilization": ("KV cache", "percentunit")}  # fmt: skip
    for ref, (name, (title, unit)) in zip("BCDE", wanted.items(), strict=True):
        expr = engine_value(policy, name, ENDPOINT, "pool, endpoint")
        if expr:
            queries.append(now(expr, "", ref, form="table"))
            shown[f"Value #{ref}"] = title
            looks.append(column(title, in_unit(unit)))
    return table(
        "Endpoints now", queries,
        "Each endpoint as its probes find it, and what its own page says. A field is empty where an endpoint has no "
        "such figure, or answered nothing in the last minutes.", shown, overrides=looks,
    )  # fmt: skip


def _tokens(policy: Policy) -> Panel:
    """Return how many requests each endpoint works on while its tokens stand still."""
    running = engine_value(policy, "requests_running", ENDPOINT, "pool, endpoint")
    made = engine_value(policy, "tokens_rate", ENDPOINT, "pool, endpoint")
    about = (
        "Endpoints that hold requests in a batch and whose generated tokens stood still: stuck, whatever their health "
        "check says."
    )
    stuck = f"count(({running}) > 0 and ({made}) == 0) or vector(0)"
    return stat("Stuck endpoints", [now(stuck, "stuck")], about, steps=ALARM, colorMode="value")


def _cpu() -> Panel:
    used = f"sum by (pool, endpoint) (rate(process_cpu_seconds_total{{{ENDPOINT}}}[$__rate_interval]))"
    return lines( "CPU of the process", [target(used, "{{endpoint}}")],
        "Processor cores that each endpoint's own process keeps busy.", unit="suffix: cores", defaults={"min": 0},
    )  # fmt: skip


def _memory() -> Panel:
    used = f"sum by (pool, endpoint) (process_resident_memory_bytes{{{ENDPOINT}}})"
    return lines( "Memory of the process", [target(used, "{{endpoint}}")],
        "Main memory that each endpoint's own process holds. Growing without end: it leaks, and will be killed.",
        unit="bytes", defaults={"min": 0},
    )  # fmt: skip


def _files() -> Panel:
    held, most = (f"max by (pool, endpoint) (process_{name}_fds{{{ENDPOINT}}})" for name in ("open", "max"))
    return lines( "Open files and connections", [target(f"{held} / {most}", "{{endpoint}}")],
        "Share of the files and sockets that each endpoint's process may have open. At 100% it takes no more requests.",
        unit="percentunit", defaults={"min": 0}, custom={"axisSoftMax": 0.1},
    )  # fmt: skip


def _cache() -> Iterator[Panel]:
    """Give what the bundled response cache says of itself."""
    hits, misses, passed = (
        f"sum by (endpoint) (rate(response_cache_{name}_total{{{ENDPOINT}}}[$__rate_interval]))"
        for name in ("hits", "misses", "bypassed")
    )
    yield lines( "Cache: answers from it",
        [target(hits, "{{endpoint}} hits"), target(misses, "{{endpoint}} misses", "B"),
         target(passed, "{{endpoint}} passed on", "C")],
        "Requests answered with a stored answer, requests without one, and requests whose answer may not be stored. "
        "All are 0 while no row sends traffic to the cache.", unit="reqps", defaults={"min": 0},
        overrides=[dashed("/ passed on$/")],
    )  # fmt: skip
    stored = f"sum by (endpoint, outcome) (rate(response_cache_published_total{{{ENDPOINT}}}[$__rate_interval]))"
    yield lines( "Cache: answers learnt", [target(stored, "{{endpoint}} {{outcome}}")],
        "Finished answers that endpoints hand to the cache. None at all: it would have nothing to answer with.",
        unit="ops", defaults={"min": 0},
    )  # fmt: skip
    shed = f"sum by (endpoint) (rate(response_cache_sheds_total{{{ENDPOINT}}}[$__rate_interval]))"
    lost = f"sum by (endpoint) (rate(response_cache_writes_dropped_total{{{ENDPOINT}}}[$__rate_interval]))"
    yield lines( "Cache: turned away", [target(shed, "{{endpoint}} requests shed"),
                                        target(lost, "{{endpoint}} writes dropped", "B")],
        "Requests refused because too many wait for the fleet behind the cache, and answers that were not kept for "
        "lack of room to wait.", unit="ops", defaults={"min": 0},
    )  # fmt: skip
