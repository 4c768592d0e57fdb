"""Budgets and baselines from looks and verdicts, and over a restart."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.policy.model import Objective
from controlplane.probes.probe import Failure, Look, Page
from controlplane.runtime.learnt import Learnt
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, Verdict
from controlplane.telemetry import Metrics

GATEWAY = Endpoint("gateway", "gateway", "http://127.0.0.1:1")
PROMISED = (Objective("availability", 0.99, timedelta(days=30)),)


class Clock:
    now = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def learnt(clock: Clock) -> Learnt:
    return Learnt(PROMISED, "svc", "gateway", clock)


def page(requests: float, errors: float, endpoint: Endpoint = GATEWAY) -> Look:
    return Look(endpoint, "metrics", 0.0, 0.0, page=Page({"requests": requests, "server_errors": errors}))


def test_what_the_gateway_answered_is_counted_from_its_growth() -> None:
    made = learnt(Clock())
    for requests, errors in ((1000, 0), (1090, 0), (1100, 1), (50, 0)):
        made.take(page(requests, errors))
    (standing,) = made.budgets()
    assert standing.budget.events == 150
    assert standing.budget.left is not None
    assert abs(standing.budget.left - (1 - (1 / 150) / 0.01)) < 1e-9


def test_other_pools_are_not_what_users_get() -> None:
    made = learnt(Clock())
    primary = Endpoint("p", "primary", "http://127.0.0.1:2")
    made.take(page(10, 0, primary))
    made.take(page(20, 10, primary))
    assert made.budgets()[0].budget.band is Band.UNKNOWN


def test_without_counters_looks_stand_for_requests() -> None:
    made = learnt(Clock())
    made.take(Look(GATEWAY, "inference", 0.0, 0.1))
    made.take(Look(GATEWAY, "inference", 0.0, 0.1, Failure.TIMEOUT))
    made.take(Look(GATEWAY, "inference", 0.0, 0.1, Failure.PROBER))
    assert made.budgets()[0].budget.events == 2


def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    clock, metrics = Clock(), Metrics()
    made = learnt(clock)
    made.take(page(0, 0))
    made.take(page(100, 3))
    verdict = Verdict("gateway", Band.OK, (Evidence("latency_p99", 0.4, Band.OK),))
    for _ in range(4):
        made.judged([verdict], metrics)
        clock.now += timedelta(hours=1)
        made.judged([Verdict("gateway", Band.OK, ())], metrics)
        made.judged([verdict], metrics)
        clock.now += timedelta(weeks=1, hours=-1)
    made.save(tmp_path / "learnt.json")
    again = learnt(clock)
    again.load(tmp_path / "learnt.json")
    assert again.budgets() == made.budgets()
    assert again._usual("gateway", Evidence("latency_p99", 0.4, Band.OK)).usual == 0.4


def test_of_two_that_save_at_once_the_newest_stays_and_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made, onto_disk = tmp_path / "learnt.json", learnt(Clock()), os.fsync
    held, go_on = Event(), Event()

    def hold_the_first(fd: int) -> None:
        if not held.is_set():
            held.set()
            assert go_on.wait(60)
        onto_disk(fd)

    monkeypatch.setattr(os, "fsync", hold_the_first)
    made.take(page(0, 0))
    made.take(page(100, 3))
    by_the_clock, at_the_stop = (Thread(target=made.save, args=(path,)) for _ in range(2))
    by_the_clock.start()
    assert held.wait(60), "it is written onto the disk"
    made.take(page(200, 3))
    at_the_stop.start()
    at_the_stop.join(0.2)  # Time to overtake the first one, if it could.
    go_on.set()
    by_the_clock.join()
    at_the_stop.join()
    again = learnt(Clock())
    again.load(path)
    assert again.budgets()[0].budget.events == 200
    assert list(tmp_path.iterdir()) == [path]


def test_what_an_objective_counts_is_told_once() -> None:
    metrics, made = Metrics(), learnt(Clock())
    made.take(page(0, 0))
    for requests, errors in ((100, 3), (150, 3)):
        made.take(page(requests, errors))
        made.judged([], metrics)
        made.judged([], metrics)
    told = {
        outcome: metrics.registry.get_sample_value(
            "controlplane_objective_requests_total", {"service": "svc", "objective": "availability", "outcome": outcome}
        )
        for outcome in ("good", "failed")
    }
    assert told == {"good": 147, "failed": 3}


def test_a_broken_file_costs_what_it_held(tmp_path: Path) -> None:
    path = tmp_path / "learnt.json"
    made = learnt(Clock())
    made.load(path)
    for broken in ("", "{", "[]", '{"budgets": {"availability": {"x": 1}}, "baselines": {}}', '{"budgets": 3}'):
        path.write_text(broken)
        made.load(path)
    assert made.budgets()[0].budget.events == 0


def test_a_file_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path) -> None:
    learnt(Clock()).save(tmp_path / "nowhere" / "learnt.json")


def test_the_peak_is_forecast_from_the_requests_of_whoever_answers_users() -> None:
    clock, metrics = Clock(), Metrics()
    made, begun = learnt(clock), clock.now
    for hour in range(4 * 168 + 1):
        clock.now = begun + timedelta(hours=hour)
        busiest = {"gateway": 30, "primary": 50, "standby": 70}
        made.judged(
            [
                Verdict(pool, Band.OK, (Evidence("request_rate", float(hour % 168 == peak), Band.OK),))
                for pool, peak in busiest.items()
            ],
            metrics,
        )
    assert made.forecast(clock.now) == clock.now + timedelta(hours=30)
    assert Learnt(PROMISED, "svc", "gateway", clock).forecast(clock.now) is None
