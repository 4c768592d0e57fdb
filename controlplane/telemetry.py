"""What the control plane says about itself: structured log lines and its own metrics.

`runtime` makes one `Metrics` and hands it to the flows; `web` serves its registry at `/metrics`; `render` writes the
names below into rules and panels, which a test compares with what is exposed.
"""

import logging
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_FAST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PHASES_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Told:
    """A gauge whose values somebody tells when they are asked for, and not whenever they change."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._named = name, documentation, tuple(labels)
        self.by: Callable[[], Iterable[tuple[Sequence[str], float]]] = tuple
        """Gives the labels and values of all there is now."""
        registry.register(self)

    def describe(self) -> list[Metric]:
        """Return what it is called."""
        name, documentation, labels = self._named
        return [GaugeMetricFamily(name, documentation, labels=labels)]

    def collect(self) -> list[Metric]:
        """Return what it is now."""
        name, documentation, labels = self._named
        family = GaugeMetricFamily(name, documentation, labels=labels)
        for of, value in self.by():
            family.add_metric(of, value)
        return [family]


class _Took:
    """How long one probe's looks took."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(_FAST_S) + 1)
        self.seconds = 0.0


class Looks:
    """Looks by result, and how long they took: thousands a second, so they are counted in plain numbers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.made: dict[tuple[str, str], int] = {}
        """By probe and result (`ok` or the kind of failure)."""
        self._took: dict[str, _Took] = {}
        registry.register(self)

    def take(self, probe: str, result: str, took_s: float) -> None:
        """Count one look."""
        key = (probe, result)
        self.made[key] = self.made.get(key, 0) + 1
        took = self._took.get(probe)
        if took is None:
            took = self._took[probe] = _Took()
        took.seconds += took_s
        took.buckets[bisect_left(_FAST_S, took_s)] += 1

    def _new(self) -> tuple[CounterMetricFamily, HistogramMetricFamily]:
        return (
            CounterMetricFamily(
                "controlplane_probes", "Looks at endpoints, by result (ok or the kind of failure).",
                labels=("probe", "result"),
            ),
            HistogramMetricFamily("controlplane_probe_seconds", "Seconds a look took.", labels=("probe",)),
        )  # fmt: skip

    def describe(self) -> Sequence[Metric]:
        """Return what it is called."""
        return self._new()

    def collect(self) -> Sequence[Metric]:
        """Return the counts so far."""
        made, seconds = self._new()
        for key, count in self.made.items():
            made.add_metric(key, count)
        for probe, took in self._took.items():
            so_far, buckets = 0, []
            for edge, count in zip((*_FAST_S, "+Inf"), took.buckets, strict=True):
                so_far += count
                buckets.append((str(edge), so_far))
            seconds.add_metric((probe,), buckets, took.seconds)
        return made, seconds


class Metrics:
    """The control plane's own metrics; names start with `controlplane_`, units are base units."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._of_service(self.registry)
        self._of_promises(self.registry)
        self._of_incidents(self.registry)
        self._of_drills(self.registry)
        self._of_alerts(self.registry)
        self._of_itself(self.registry)

    def _of_service(self, reg: CollectorRegistry) -> None:
        """What is seen of the service, and what is done about it."""
        self.signal = Told(
            "controlplane_signal_value", "A signal's value over its window, in its base unit; absent when unknown.",
            ("service", "pool", "signal"), reg,
        )  # fmt: skip
        self.verdict = Told(
            "controlplane_verdict", "1 for the verdict in force on a pool, 0 for the others.",
            ("service", "pool", "verdict"), reg,
        )  # fmt: skip
        self.endpoint_up = Gauge(
            "controlplane_endpoint_up", "1 while an endpoint answers its probes, 0 while it is down.",
            ("service", "pool", "endpoint"), registry=reg,
        )  # fmt: skip
        self.level = Gauge(
            "controlplane_level", "1 for the level in force (none, P2, P1, P0), 0 for the others.",
            ("service", "level"), registry=reg,
        )  # fmt: skip
        self.row_phase = Gauge(
            "controlplane_row_phase", "1 for the phase a row of the matrix is in, 0 for the others.",
            ("service", "row", "phase"), registry=reg,
        )  # fmt: skip
        self.row_waits = Gauge(
            "controlplane_row_waits", "1 while a row would engage and waits for a person to approve it.",
            ("service", "row"), registry=reg,
        )  # fmt: skip
        self.brake = Gauge(
            "controlplane_brake", "1 while nothing engages or is given back by itself.", ("service",), registry=reg
        )
        self.worries = Counter(
            "controlplane_worries", "What people had to hear of the matrix (failed, late, brake).",
            ("service", "row", "worry"), registry=reg,
        )  # fmt: skip
        self.switches = Counter(
            "controlplane_switches", "Levers pulled, by how it ended (verified, failed, refused).",
            ("service", "row", "outcome"), registry=reg,
        )  # fmt: skip
        self.prewarms = Counter(
            "controlplane_prewarms", "Warm-ups of a pool by the clock, by how it ended (warm, failed).",
            ("service", "pool", "outcome"), registry=reg,
        )  # fmt: skip

    def _of_promises(self, reg: CollectorRegistry) -> None:
        """What users were promised, and how it is kept."""
        self.switch_seconds = Histogram(
            "controlplane_switch_seconds",
            "Seconds from detection to a phase of an action (decided, intended, acted, verified).",
            ("service", "row", "phase"), buckets=_PHASES_S, registry=reg,
        )  # fmt: skip
        self.row_objective = Gauge(
            "controlplane_row_objective_seconds", "What a row promises, from detection to restored service.",
            ("service", "row"), registry=reg,
        )  # fmt: skip
        self.budget_left = Gauge(
            "controlplane_error_budget_left_ratio", "What is left of an objective's error budget; below 0 overspent.",
            ("service", "objective"), registry=reg,
        )  # fmt: skip
        self.budget_burns = Gauge(
            "controlplane_error_budget_burns", "1 while a budget burns too fast in two windows at once.",
            ("service", "objective", "urgency"), registry=reg,
        )  # fmt: skip
        self.objective_requests = Counter(
            "controlplane_objective_requests", "What an objective counts, by outcome (good, failed).",
            ("service", "objective", "outcome"), registry=reg,
        )  # fmt: skip
        self.incidents_open = Gauge(
            "controlplane_incidents_open", "Incidents that are not resolved.", ("service",), registry=reg
        )

    def _of_incidents(self, reg: CollectorRegistry) -> None:
        """What people have to handle, and how long they and we take."""
        self.incidents_by_level = Told(
            "controlplane_incidents_by_level", "Real incidents (no drill's) that are not resolved, by level.",
            ("service", "level", "acknowledged"), reg,
        )  # fmt: skip
        self.incidents_waiting = Told(
            "controlplane_incident_unacknowledged_seconds",
            "Age of the oldest real incident that nobody has acknowledged; 0 when there is none.",
            ("service", "severity"), reg,
        )  # fmt: skip
        self.incident_seconds = Told(
            "controlplane_incident_seconds",
            "Seconds that real incidents of the last 30 days took to a step (detect, acknowledge, mitigate, resolve).",
            ("service", "level", "step", "statistic"), reg,
        )  # fmt: skip
        self.triaged = Counter(
            "controlplane_triage_decisions", "What became of notices (open, join, resolve, ignore).", ("decision",),
            registry=reg,
        )  # fmt: skip

    def _of_drills(self, reg: CollectorRegistry) -> None:
        """What is broken on purpose."""
        self.faults_active = Gauge(
            "controlplane_faults_active", "Faults that are leased and not healed.", ("kind",), registry=reg
        )
        self.drills = Counter(
            "controlplane_drills", "Drills that ended, by outcome.", ("experiment", "outcome"), registry=reg
        )
        self.drill_phase = Gauge(
            "controlplane_drill_phase_seconds", "Seconds from the fault to a phase in the last drill.",
            ("experiment", "phase"), registry=reg,
        )  # fmt: skip
        self.drill_passed_at = Gauge(
            "controlplane_drill_last_passed_timestamp_seconds", "When an experiment last passed (Unix time).",
            ("experiment",), registry=reg,
        )  # fmt: skip
        self.drill_overdue = Gauge(
            "controlplane_drill_overdue", "1 while a scheduled experiment has not passed for too long.",
            ("experiment",), registry=reg,
        )  # fmt: skip
        self.drill_postponed = Counter(
            "controlplane_drill_postponed", "Attempts at a date of the schedule that a closed gate postponed.",
            ("experiment",), registry=reg,
        )  # fmt: skip
        self.drill_running = Gauge(
            "controlplane_drill_running", "1 while a drill of an experiment runs.", ("experiment",), registry=reg
        )
        self.drill_score = Told(
            "controlplane_drill_score_ratio", "Share of the drills that passed in the newest month with one.", (), reg
        )
        self.drill_median = Told(
            "controlplane_drill_median_seconds",
            "Median time over the drills of the newest month with one, by kind.",
            ("time",),
            reg,
        )
        self.drills_halted = Gauge("controlplane_drills_halted", "1 while every drill is halted.", registry=reg)

    def _of_alerts(self, reg: CollectorRegistry) -> None:
        """What others tell of."""
        self.alertmanager_answered_at = Gauge(
            "controlplane_alertmanager_answered_timestamp_seconds",
            "When Alertmanager last said what fires (Unix time).", ("service",), registry=reg,
        )  # fmt: skip
        self.alerts_received = Counter(
            "controlplane_alerts_received", "Alerts of webhooks that were written down, new or not.", registry=reg
        )
        self.alerts_duplicate = Counter(
            "controlplane_alerts_duplicate", "Alerts of webhooks that said nothing new: told twice, or late.",
            registry=reg,
        )  # fmt: skip
        self.alerts_reconciled = Counter(
            "controlplane_alerts_reconciled", "Alerts no webhook told us of, by what was done (taken_in, ended).",
            ("what",), registry=reg,
        )  # fmt: skip
        self.webhooks_refused = Counter(
            "controlplane_webhooks_refused", "Webhooks that were not taken, by the reason.", ("reason",), registry=reg
        )
        self.intake_commit_seconds = Histogram(
            "controlplane_intake_commit_seconds", "Seconds until a group of alerts was on disk.",
            buckets=_FAST_S, registry=reg,
        )  # fmt: skip
        self.intake_waiting = Gauge("controlplane_intake_waiting", "Alerts that wait to be written down.", registry=reg)
        self.watchdog_seconds = Histogram(
            "controlplane_watchdog_seconds", "Seconds a watchdog was on its way from its evaluation to us.",
            ("source",), buckets=_PHASES_S, registry=reg,
        )  # fmt: skip
        self.watchdog_heard_at = Gauge(
            "controlplane_watchdog_last_heard_timestamp_seconds", "When a watchdog was last heard (Unix time).",
            ("source",), registry=reg,
        )  # fmt: skip

    def _of_itself(self, reg: CollectorRegistry) -> None:
        """How the control plane itself fares."""
        self.store_answered_at = Gauge(
            "controlplane_store_answered_timestamp_seconds", "When the database last answered (Unix time).",
            ("service",), registry=reg,
        )  # fmt: skip
        self.refusals = Counter(
            "controlplane_refusals", "Requests that were not let in, by the status they were answered with.",
            ("status",), registry=reg,
        )  # fmt: skip
        self.looks = Looks(reg)
        self.probes_skipped = Counter(
            "controlplane_probes_skipped", "Looks left out because the one before had not ended.",
            ("probe",), registry=reg,
        )  # fmt: skip
        self.kubernetes_requests = Counter(
            "controlplane_kubernetes_requests",
            "Requests to Kubernetes API servers, by verb, resource and answer (its status, or unreachable).",
            ("verb", "resource", "code"), registry=reg,
        )  # fmt: skip
        self.evaluation_seconds = Histogram(
            "controlplane_evaluation_seconds", "Seconds one pass over windows, verdicts and rows took.",
            buckets=_FAST_S, registry=reg,
        )  # fmt: skip
        self.loop_lag = Gauge(
            "controlplane_loop_lag_seconds", "How late the last tick of the event loop was.", registry=reg
        )
        self.store_seconds = Histogram(
            "controlplane_store_seconds", "Seconds a transaction of the database took, by how it ended (ok, failed).",
            ("result",), buckets=_FAST_S, registry=reg,
        )  # fmt: skip
        self.leader = Gauge(
            "controlplane_leader", "1 while this control plane is in charge and may move levers, 0 while another is.",
            ("service",), registry=reg,
        )  # fmt: skip
        self.leader_term = Gauge(
            "controlplane_leader_term", "The fencing token of the term in which it is in charge; 0 while it is not.",
            ("service",), registry=reg,
        )  # fmt: skip
        self.info = Gauge(
            "controlplane_info", "1, with the version and the console's address of the control plane of a service.",
            ("service", "version", "console"), registry=reg,
        )  # fmt: skip
        self.ready = Gauge("controlplane_ready", "1 when every part of the control plane is ready.", registry=reg)


def configure_logging(stream: TextIO | None = None, level: str = "INFO") -> None:
    """Send JSON Lines (RFC 3339 UTC times) to a stream, the standard error stream by default."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("event"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
