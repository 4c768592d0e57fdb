"""Asking a Prometheus-compatible server for signals: Prometheus, Thanos, Mimir, VictoriaMetrics.

Every query is asked once an interval for the whole fleet, and its series are dealt out to the endpoints by their
labels. A server that says that its answer is not whole (Thanos and Mimir by `warnings`, VictoriaMetrics by
`isPartial`) is believed: the numbers are used and flagged.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import isfinite
from time import monotonic, time
from typing import Any
from urllib.parse import urlencode, urlsplit

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import Failure, Fetch, Look, Page, PromqlSpec
from controlplane.probes.shared import Shared

RANGE_POINTS = 12
"""How many points a range is asked in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one query gave."""

    series: tuple[tuple[Mapping[str, str], float], ...] = ()
    partial: str = ""
    failure: Failure | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Answers:
    """What all queries gave, dealt out."""

    by_instance: dict[str, dict[str, float]] = field(default_factory=dict)
    by_endpoint: dict[str, dict[str, float]] = field(default_factory=dict)
    by_pool: dict[str, dict[str, float]] = field(default_factory=dict)
    partial: str = ""
    failure: Failure | None = None
    detail: str = ""


class PromqlProbe:
    """Read signals from a server that scrapes the fleet already."""

    name = "promql"

    def __init__(self, spec: PromqlSpec, fetch: Fetch) -> None:
        """Take what is asked.

        Args:
            spec: the server and the queries.
            fetch: gets pages.
        """
        self.every = spec.every
        self._spec = spec
        self._fetch = fetch
        self._answers = Shared[_Answers](self.every.total_seconds() / 2)

    async def look(self, endpoint: Endpoint) -> Look:
        """Look once: what the newest answers say of this endpoint."""
        started = monotonic()
        answers = await self._answers.get("", self._ask)
        now = monotonic()
        if answers.failure:
            return Look(endpoint, self.name, now, now - started, answers.failure, answers.detail)
        gauges = {
            **answers.by_pool.get(endpoint.pool, {}),
            **answers.by_endpoint.get(endpoint.name, {}),
            **answers.by_instance.get(urlsplit(endpoint.url).netloc, {}),
        }
        page = Page(gauges=gauges, partial=answers.partial)
        return Look(endpoint, self.name, now, now - started, detail=answers.partial, page=page)

    async def _ask(self) -> _Answers:
        asked = await asyncio.gather(*(self._query(query) for query in self._spec.queries.values()))
        answers = dict(zip(self._spec.queries, asked, strict=True))
        failed = {signal: answer for signal, answer in answers.items() if answer.failure}
        if answers and len(failed) == len(answers):
            first = next(iter(failed.values()))
            return _Answers(failure=first.failure, detail=first.detail)
        made = _Answers(partial=_why_partial(answers))
        for signal, answer in answers.items():
            for labels, value in answer.series:
                _deal(made, signal, labels, value)
        return made

    async def _query(self, query: str) -> Answer:
        got = await self._fetch(query_url(self._spec, query, time()), self._spec.timeout)
        if got.content is None:
            return Answer(failure=got.failure, detail=f"{self._spec.url}: {got.detail}")
        return read_answer(got.content)


def query_url(spec: PromqlSpec, query: str, now: float) -> str:
    """Return the address of a query; `now` is Unix time, which a range needs."""
    base = f"{spec.url.rstrip('/')}/api/v1/query"
    if spec.over <= timedelta(0):
        return f"{base}?{urlencode({'query': query})}"
    span = spec.over.total_seconds()
    asked = {"query": query, "start": f"{now - span:.3f}", "end": f"{now:.3f}", "step": f"{span / RANGE_POINTS:.3f}"}
    return f"{base}_range?{urlencode(asked)}"


def read_answer(content: bytes) -> Answer:
    """Read an answer of the HTTP API, version 1; whatever it holds, this does not raise."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return Answer(failure=Failure.ANSWER, detail=f"not an answer of the query API: {content[:80]!r}")
    if not isinstance(body, Mapping) or body.get("status") != "success" or not isinstance(body.get("data"), Mapping):
        said = body.get("error") if isinstance(body, Mapping) else None
        return Answer(failure=Failure.ANSWER, detail=f"the query failed: {str(said or body)[:200]}")
    warnings = [str(warning) for warning in body.get("warnings") or ()]
    if body.get("isPartial") is True:
        warnings.append("the server says that its answer is partial")
    kind, result = body["data"].get("resultType"), body["data"].get("result")
    if kind == "scalar":
        result = [{"metric": {}, "value": result}]
    if not isinstance(result, list):
        return Answer(failure=Failure.ANSWER, detail=f"a result of kind `{kind}` cannot be read")
    series = tuple(found for item in result if (found := _series(item)) is not None)
    return Answer(series, "; ".join(warnings)[:300])


def _series(item: Any) -> tuple[Mapping[str, str], float] | None:
    """Return one series' labels and its newest number; None where it has none."""
    try:
        points = item["values"] if "values" in item else [item["value"]]
        numbers = [float(text) for _, text in points]
        labels = {str(key): str(value) for key, value in item["metric"].items()}
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    finite = [number for number in numbers if isfinite(number)]
    return (labels, finite[-1]) if finite else None


def _deal(made: _Answers, signal: str, labels: Mapping[str, str], value: float) -> None:
    """Give a value to whom its labels name; one that names nobody is about the primary pool."""
    if labels.get("endpoint"):
        where, key = made.by_endpoint, labels["endpoint"]
    elif labels.get("instance"):
        where, key = made.by_instance, labels["instance"]
    else:
        where, key = made.by_pool, labels.get("pool", "primary")
    where.setdefault(key, {})[signal] = value


def _why_partial(answers: Mapping[str, Answer]) -> str:
    said = [answer.partial for answer in answers.values() if answer.partial]
    lost = [f"{signal}: {answer.detail}" for signal, answer in answers.items() if answer.failure]
    return "; ".join(dict.fromkeys((*said, *lost)))[:400]
