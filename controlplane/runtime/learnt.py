"""What outlives a restart besides the database: error budgets and what is usual at which hour, in one small file.

Both are summaries that a lost file makes younger, never wrong: a budget says since when it has counted, a baseline
that it is not learnt yet.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Lock

import structlog

from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.flows.standing import BudgetStanding, PoolStanding, Standing
from controlplane.policy.model import Objective
from controlplane.probes.probe import Look
from controlplane.signals.sample import CATALOGUE
from controlplane.slo.baseline import Baseline
from controlplane.slo.burn import BudgetWindow, Urgency, budget
from controlplane.slo.verdict import Evidence, Verdict
from controlplane.telemetry import Metrics
from controlplane.wholefile import write_whole

log = structlog.get_logger("learnt")


class Learnt:
    """Budgets of the objectives, and baselines of every signal of every pool."""

    def __init__(self, objectives: Iterable[Objective], service: str, pool: str, now: Callable[[], datetime]) -> None:
        """Begin with nothing learnt.

        Args:
            objectives: what was promised; those about availability have a budget.
            service: for the metrics.
            pool: whose answers are the users': the gateway's, or the primary's where there is none.
            now: aware UTC; budgets and hours of the week are kept by the wall clock, to outlive a restart.
        """
        self._objectives = tuple(o for o in objectives if o.name == "availability")
        self._service = service
        self._pool = pool
        self._now = now
        self._budgets = {o.name: BudgetWindow(o.window) for o in self._objectives}
        self._baselines: dict[tuple[str, str], Baseline] = {}
        self._counters: dict[str, tuple[float, float]] = {}
        self.counted = (0.0, 0.0)
        """Requests that users got an answer to since the start, and how many of them failed."""
        self._shown = (0.0, 0.0)
        """As many of them as the metrics have been told of."""
        self._saving = Lock()

    def take(self, look: Look) -> None:
        """Count what users got: by the answering pool's own counters, or by looks where it has none."""
        if look.endpoint.pool != self._pool or look.says_nothing:
            return
        if look.page is not None and "requests" in look.page.counters:
            seen = look.page.counters["requests"], look.page.counters.get("server_errors", 0.0)
            before = self._counters.get(look.endpoint.name, seen)
            self._counters[look.endpoint.name] = seen
            restarted = seen[0] < before[0] or seen[1] < before[1]
            total = seen[0] if restarted else seen[0] - before[0]
            failed = seen[1] if restarted else seen[1] - before[1]
            self._count(total - failed, total)
        elif look.says_alive and look.endpoint.name not in self._counters:
            self._count(float(look.ok), 1.0)

    def _count(self, good: float, total: float) -> None:
        if total > 0:
            self.counted = self.counted[0] + total, self.counted[1] + total - good
            at = self._now().timestamp()
            for window in self._budgets.values():
                window.add(at, good, total)

    def judged(self, verdicts: Iterable[Verdict], metrics: Metrics) -> None:
        """Learn from what the pools' signals show now, and show the budgets as metrics."""
        at = self._now()
        for verdict in verdicts:
            for evidence in verdict.evidence:
                if evidence.value is not None:
                    key = verdict.pool, evidence.signal
                    self._baselines.setdefault(key, Baseline()).add(at, evidence.value)
        total, failed = self.counted[0] - self._shown[0], self.counted[1] - self._shown[1]
        self._shown = self.counted
        for objective in self._objectives:
            for outcome, count in (("good", total - failed), ("failed", failed)):
                metrics.objective_requests.labels(self._service, objective.name, outcome).inc(count)
        for standing in self.budgets():
            if standing.budget.left is not None:
                metrics.budget_left.labels(self._service, standing.objective).set(standing.budget.left)
            for urgency in Urgency:
                burning = any(burn.trips and burn.rule.urgency is urgency for burn in standing.budget.burns)
                metrics.budget_burns.labels(self._service, standing.objective, urgency).set(burning)

    def budgets(self) -> tuple[BudgetStanding, ...]:
        """Return how the objectives' budgets stand."""
        now = self._now().timestamp()
        return tuple(BudgetStanding(o.name, budget(self._budgets[o.name], o.target, now)) for o in self._objectives)

    def forecast(self, now: datetime) -> datetime | None:
        """Return when the next peak begins: the hour of the week that usually has the most requests.

        By what the gateway counted, or the primary pool where the gateway counts nothing; None while it is not learnt.
        """
        rates = (self._baselines.get((pool, "request_rate")) for pool in (self._pool, PRIMARY))
        return next((peak for rate in rates if rate and (peak := rate.busiest(now))), None)

    def shown(self, standing: Standing) -> Standing:
        """Return a standing with the budgets, and what is usual beside each value."""
        pools = tuple(self._beside(pool) for pool in standing.pools)
        return replace(standing, pools=pools, budgets=self.budgets())

    def _beside(self, pool: PoolStanding) -> PoolStanding:
        evidence = tuple(self._usual(pool.name, e) for e in pool.verdict.evidence)
        return replace(pool, verdict=replace(pool.verdict, evidence=evidence))

    def _usual(self, pool: str, evidence: Evidence) -> Evidence:
        baseline = self._baselines.get((pool, evidence.signal))
        if baseline is None or evidence.value is None:
            return evidence
        deviation = baseline.deviation(self._now(), evidence.value)
        usual = deviation.usual.median if deviation.usual else None
        return replace(evidence, usual=usual, deviation=deviation.score)

    def save(self, path: Path) -> None:
        """Write everything down; a file that cannot be written is said, and tried again the next time.

        Threads may call it at once, as the clock's and the stop do: the second one waits, so that the newest stays.
        """
        try:
            with self._saving:
                write_whole(path, json.dumps(self._content(), separators=(",", ":")))
        except OSError as error:
            log.error("what was learnt is not kept", path=str(path), why=str(error))

    def _content(self) -> Mapping[str, object]:
        return {
            "budgets": {name: window.dump() for name, window in self._budgets.items()},
            "baselines": {f"{pool} {signal}": b.dump() for (pool, signal), b in self._baselines.items()},
        }

    def load(self, path: Path) -> None:
        """Take back what was written; a file that is not there or broken costs what it held."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name, kept in content["budgets"].items():
                if name in self._budgets:
                    self._budgets[name].load(kept)
            for key, hours in content["baselines"].items():
                pool, _, signal = key.rpartition(" ")
                if signal in CATALOGUE:
                    self._baselines.setdefault((pool, signal), Baseline()).load(hours)
        except FileNotFoundError:
            return
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            log.error("what was learnt is lost", path=str(path), why=str(error))


def answering_pool(*, gateway: bool) -> str:
    """Return the pool whose answers are what users get."""
    return GATEWAY_POOL if gateway else PRIMARY
