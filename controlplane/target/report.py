"""Summaries of a load record: success rate and latency percentiles, over all and by who answered."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from controlplane.target.rundir import write_json

SHARES = MappingProxyType({"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0})


class Answered(Protocol):
    """What a summary needs of a record."""

    @property
    def latency_s(self) -> float:
        """Seconds from the intended time to the answer."""

    @property
    def status(self) -> int:
        """HTTP status; 0 is no answer."""

    @property
    def served_by(self) -> str | None:
        """The endpoint that answered."""

    @property
    def error(self) -> str | None:
        """What went wrong, if anything."""

    @property
    def ttft_s(self) -> float | None:
        """Seconds from the intended time to the first byte of a stream."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a load record, as far as a summary needs it."""

    intended: float
    """Unix seconds."""
    latency_s: float
    status: int
    served_by: str | None
    error: str | None
    ttft_s: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of some requests. Percentiles are exact (nearest rank), over successes and failures alike."""

    requests: int
    failed: int
    p50_s: float
    p95_s: float
    p99_s: float

    @property
    def success_ratio(self) -> float:
        """Share of good answers, 0..1; 1 when nothing was asked."""
        return 1.0 if not self.requests else 1.0 - self.failed / self.requests


def good(record: Answered) -> bool:
    """Tell whether a request got a whole 2xx answer."""
    return 200 <= record.status < 300 and record.error is None


def summary(records: Sequence[Answered]) -> Summary:
    """Sum up requests."""
    latencies = sorted(record.latency_s for record in records)
    failed = sum(not good(record) for record in records)
    return Summary(len(latencies), failed, *(percentile(latencies, share) for share in (0.5, 0.95, 0.99)))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile of ordered values; NaN of none."""
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def read(path: Path) -> list[Line]:
    """Read a load record; a last line that is still being written is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            raw = json.loads(text)
        except ValueError:
            continue
        lines.append(
            Line(raw["intended"], raw["latency_s"], raw["status"], raw["served_by"], raw["error"], raw.get("ttft_s"))
        )
    return lines


def summarise(path: Path, windows: Mapping[str, tuple[float, float]]) -> dict[str, Summary]:
    """Sum up a load record by windows of intended time.

    Args:
        path: the JSON Lines file.
        windows: name -> (from, to) in unix seconds, the end excluded.
    """
    lines = read(path)
    return {
        name: summary([line for line in lines if begin <= line.intended < end])
        for name, (begin, end) in windows.items()
    }


def by_endpoint(records: Iterable[Answered]) -> dict[str, list[Answered]]:
    """Sort requests by who answered; ``all`` comes first and holds every one."""
    everything = list(records)
    groups: dict[str, list[Answered]] = {}
    for record in everything:
        groups.setdefault(record.served_by or "no endpoint", []).append(record)
    return {"all": everything, **dict(sorted(groups.items()))}


def summary_file(out: Path) -> Path:
    """Return where the summary of a load record lies."""
    return out.with_suffix(".summary.json")


def write_summary(path: Path, records: Iterable[Answered]) -> None:
    """Write the percentiles, in seconds, of all requests and by who answered, as JSON.

    Raises:
        TargetError: when it cannot be written.
    """
    write_json(path, {name: _figures(members) for name, members in by_endpoint(records).items()})


def _figures(members: Sequence[Answered]) -> dict[str, Any]:
    found = {"requests": len(members), "failed": sum(not good(record) for record in members)}
    times = {
        "latency_s": [record.latency_s for record in members],
        "ttft_s": [record.ttft_s for record in members if record.ttft_s is not None],
    }
    return {**found, **{name: _percentiles(sorted(values)) for name, values in times.items() if values}}


def _percentiles(ordered: Sequence[float]) -> dict[str, float]:
    return {name: round(percentile(ordered, share), 6) for name, share in SHARES.items()}


def print_summary(records: Iterable[Answered]) -> None:
    """Print a table: all requests, then by endpoint."""
    groups = by_endpoint(records)
    streamed = any(record.ttft_s is not None for record in groups["all"])
    head = ["served by", "requests", "failed", "success", "p50 ms", "p95 ms", "p99 ms"]
    table = Table(*head, *(["first p50", "first p99"] if streamed else []), title="load")
    for name, members in groups.items():
        figures = summary(members)
        times = [figures.p50_s, figures.p95_s, figures.p99_s]
        if streamed:
            first = sorted(record.ttft_s for record in members if record.ttft_s is not None)
            times += [percentile(first, 0.5), percentile(first, 0.99)]
        shown = [f"{seconds * 1000:.1f}" for seconds in times]
        table.add_row(name, str(figures.requests), str(figures.failed), f"{figures.success_ratio:.3%}", *shown)
    Console().print(table)
