"""What `controlplane lint` needs from outside: the rendered files, a Prometheus, the addresses that links name.

Called by the command line. The judging is `lint`'s.
"""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from controlplane.chaos.drill import DrillPhase, Outcome
from controlplane.chaos.fault import FaultKind
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import LEVELS
from controlplane.errors import RunDirError, UnreachableError, UsageError
from controlplane.lint.artefact import Artefact, read
from controlplane.lint.finding import Check
from controlplane.lint.known import OWN, Known, series_of
from controlplane.lint.links import addresses
from controlplane.lint.live import Live, Reply
from controlplane.lint.whole import Outside, check_all
from controlplane.policy.load import Loaded
from controlplane.policy.model import DrillPlan, Policy
from controlplane.probes.probe import Failure
from controlplane.probes.promql import read_answer
from controlplane.signals.sample import CATALOGUE
from controlplane.slo.threshold import Band
from controlplane.telemetry import Metrics

FOLDERS = ("alerts", "dashboards", "runbooks")
ENDINGS = (".yml", ".yaml", ".json", ".md")
AT_ONCE = 8
TIMEOUT_S = 10.0
MAX_BYTES = 64 * 1024 * 1024
_SPAN = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_ANSWERS_ANYWAY = (401, 403, 405, 429)
"""Statuses of something that is there and does not want this visitor."""


@dataclass(frozen=True, slots=True)
class Linted:
    """What was looked at and what came of it."""

    paths: tuple[str, ...]
    checks: tuple[Check, ...]


def lint(loaded: Loaded, directory: Path, prometheus: str, *, follow: bool, since: str = "1h") -> Linted:
    """Check everything that is published in a directory.

    Args:
        loaded: the policy page that it was rendered from.
        directory: holds `alerts/`, `dashboards/` and `runbooks/`.
        prometheus: base URL of the server that scrapes the fleet; empty to ask none.
        follow: whether addresses in links are asked.
        since: a PromQL duration; how far back a series' last sample still counts.

    Raises:
        UsageError: when nothing has been rendered there, or `since` is no duration.
        UnreachableError: when the Prometheus does not answer.
    """
    artefacts = read_files(directory)
    if not artefacts:
        raise UsageError(f"nothing has been rendered in {directory}", "it has no alerts, dashboards or runbooks",
                         f"run `controlplane render {loaded.path}`")  # fmt: skip
    if not _SPAN.fullmatch(since):
        raise UsageError(f"`{since}` is no span", "it is not a PromQL duration", "write it like 1h or 30m")
    known = known_of(loaded.policy)
    live = None
    if prometheus:
        live = Live(PrometheusApi(prometheus), known, since)
        live.begin()
    there = frozenset(a.path for a in artefacts) | _files(directory)
    outside = Outside(
        there, period(loaded.policy.drills), today(), _visit(addresses(artefacts)) if follow else None, live
    )
    return Linted(tuple(a.path for a in artefacts), check_all(artefacts, known, outside))


def read_files(directory: Path) -> tuple[Artefact, ...]:
    """Read every rendered file, paths in order.

    Raises:
        RunDirError: when one cannot be read.
    """
    found = []
    for name in sorted(_files(directory)):
        if name.endswith(ENDINGS):
            try:
                found.append(read(name, (directory / name).read_text(encoding="utf-8")))
            except (OSError, UnicodeDecodeError) as error:
                raise RunDirError(f"cannot read {directory / name}", str(error), "render it anew") from error
    return tuple(found)


def _files(directory: Path) -> frozenset[str]:
    every = (path for folder in FOLDERS for path in (directory / folder).rglob("*") if path.is_file())
    return frozenset(path.relative_to(directory).as_posix() for path in every)


def period(plans: Mapping[str, DrillPlan]) -> timedelta:
    """Return how old a proof may be: the shortest that a plan calls overdue, or the default of plans."""
    return min((plan.overdue_after for plan in plans.values()), default=timedelta(days=38))


def today() -> date:
    """Return the day it is, in UTC."""
    return datetime.now(UTC).date()


def known_of(policy: Policy) -> Known:
    """Return what the control plane of a policy can expose: names, labels, and the values of labels with a list."""
    own: dict[str, frozenset[str]] = {}
    for collector in Metrics().collectors():
        labels = _labels(collector)
        for family in collector.describe():
            ends = {"le"} if family.type == "histogram" else set()
            own |= {
                name: frozenset({*labels, *ends} | _own_labels(family.name))
                for name in series_of(family.name, family.type)
            }
    pools = {*policy.fleet.pools, "gateway"}
    values: Mapping[str, Iterable[str]] = {
        "service": (policy.service,),
        "pool": pools,
        "signal": (*CATALOGUE, *(name for probe in policy.probes if probe.promql for name in probe.promql.queries)),
        "verdict": Band,
        "level": ("none", *LEVELS),
        "row": LEVELS,
        "phase": (*Phase, *DrillPhase, "decided", "intended", "acted", "verified"),
        "result": ("ok", *Failure),
        "kind": FaultKind,
        "outcome": (*Outcome, "verified", "failed", "refused", "warm"),
        "urgency": ("page", "ticket"),
        "objective": (objective.name for objective in policy.objectives),
    }
    return Known(own, {label: frozenset(map(str, names)) for label, names in values.items()})


def _labels(collector: Any) -> tuple[str, ...]:
    """Return the labels that a metric of ours is made with."""
    return tuple(getattr(collector, "_labelnames", ()) or getattr(collector, "_named", ((), (), ()))[2])


def _own_labels(family: str) -> frozenset[str]:
    return _LOOKS.get(family.removeprefix(OWN), frozenset())


_LOOKS = {"probes": frozenset(("probe", "result")), "probe_seconds": frozenset(("probe",))}
"""Labels of the families that are counted in plain numbers and made when they are asked for."""


class PrometheusApi:
    """A Prometheus-compatible server's HTTP API."""

    def __init__(self, url: str) -> None:
        """Take its base URL."""
        self._url = url.rstrip("/")
        self._at = ""
        """Unix seconds by its own clock that every query is evaluated at; empty before the first one."""

    def ask(self, query: str) -> Reply:
        """Evaluate an instant query, at the moment of the first one.

        Raises:
            UnreachableError: when it does not answer as a Prometheus does.
        """
        self._at = self._at or self._now()
        answer = read_answer(self._get("query", {"query": query, "time": self._at}))
        return Reply(tuple(labels for labels, _ in answer.series), answer.detail if answer.failure else "")

    def _now(self) -> str:
        answer = read_answer(self._get("query", {"query": "time()"}))
        if not answer.series:
            raise _unreachable(self._url, answer.detail or "it does not say what time it is")
        return f"{answer.series[0][1]:.3f}"

    def names(self) -> frozenset[str]:
        """Return every series name it has ever stored."""
        data = self._data("label/__name__/values")
        return frozenset(map(str, data if isinstance(data, list) else ()))

    def declared(self) -> frozenset[str]:
        """Return the families that some target declares, whether or not it has a sample."""
        data = self._data("metadata")
        return frozenset(map(str, data if isinstance(data, dict) else ()))

    def _data(self, path: str) -> object:
        body = json.loads(self._get(path, {}))
        return body.get("data") if isinstance(body, dict) else None

    def _get(self, path: str, form: Mapping[str, str]) -> bytes:
        """Return an answer of the API; a refused query is one, too."""
        url = f"{self._url}/api/v1/{path}"
        try:
            status, body = _fetch(url, urlencode(form).encode() if form else None)
        except (OSError, ValueError) as error:
            raise _unreachable(self._url, str(error)) from error
        if status // 100 == 2 or body.lstrip().startswith(b'{"status"'):
            return body
        raise _unreachable(self._url, f"{path}: HTTP {status}")


def _unreachable(url: str, why: str) -> UnreachableError:
    return UnreachableError(
        f"no Prometheus answers at {url}", why, "name the one that scrapes the fleet: --prometheus URL"
    )


def _visit(urls: Iterable[str]) -> dict[str, str]:
    """Ask every address; return why each does not answer, empty where it does."""
    asked = tuple(urls)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(asked, threads.map(_why_silent, asked), strict=True))


def _why_silent(url: str, fetch: Callable[[str], tuple[int, bytes]] | None = None) -> str:
    try:
        status, _ = (fetch or partial(_fetch, body=None))(url)
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return "" if status < 400 or status in _ANSWERS_ANYWAY else f"HTTP {status}"


def _fetch(url: str, body: bytes | None) -> tuple[int, bytes]:
    """Return the status and the content of an address."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is no http address")
    try:
        with urllib.request.urlopen(url, body, TIMEOUT_S) as response:  # noqa: S310 - checked above
            content: bytes = response.read(MAX_BYTES + 1)
            status: int = response.status
    except urllib.error.HTTPError as error:
        return error.code, error.read(MAX_BYTES)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return status, content
