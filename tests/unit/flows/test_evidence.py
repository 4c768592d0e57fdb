"""From looks to evidence: what each signal of a pool says, and when it says nothing."""

from datetime import timedelta
from math import inf

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.flows.evidence import Assessor
from controlplane.flows.records import Patience, Records
from controlplane.probes.probe import Failure, Histogram, Look, Page
from controlplane.slo.threshold import Band, Threshold
from controlplane.slo.verdict import Evidence

EDGES = (0.5, 1.0, inf)
P99 = Threshold(0.5, 1.0, 2.0, timedelta(seconds=30), timedelta(0), min_samples=50)


class Fleet:
    """Two pools of two endpoints, and looks at them."""

    def __init__(
        self,
        thresholds: dict[str, Threshold] | None = None,
        patience: dict[str, Patience] | None = None,
        every_s: dict[str, float] | None = None,
    ) -> None:
        self.records = Records(thresholds or {}, patience, every_s)
        self.assessor = Assessor(thresholds or {})
        self.all = [Endpoint(f"{pool}-{i}", pool, f"http://{pool}-{i}") for pool in ("primary", "base") for i in (0, 1)]
        for pool in ("primary", "base"):
            self.records.set_endpoints(pool, [e for e in self.all if e.pool == pool])

    def look(
        self, i: int, at: float, failure: Failure | None = None, probe: str = "http", page: Page | None = None
    ) -> bool:
        record = self.records.find(self.all[i])
        assert record
        return self.records.take(record, Look(self.all[i], probe, at, 0.01, failure, "", page))

    def page(self, i: int, at: float, requests: float, cumulative: tuple[float, ...] = (), **gauges: float) -> None:
        histograms = {"latency_p99": Histogram(EDGES, cumulative)} if cumulative else {}
        counters = {"requests": requests, "server_errors": 0.0, "generated_tokens": requests * 10}
        self.look(i, at, probe="metrics", page=Page(counters, gauges, histograms))

    def says(self, signal: str, now: float, pool: str = "primary") -> Evidence:
        return next(e for e in self.assessor.evidence(self.records, now)[pool] if e.signal == signal)


def test_pools_are_told_apart_and_histograms_are_merged_before_the_quantile() -> None:
    fleet = Fleet({"latency_p99": P99})
    for i, (fast, slow) in enumerate([(98, 0), (0, 2), (0, 100)]):
        fleet.page(i, 1.0, 0, (0.0, 0.0, 0.0))
        fleet.page(i, 6.0, fast + slow, (float(fast), float(fast + slow), float(fast + slow)))
    primary, base = fleet.says("latency_p99", 7.0), fleet.says("latency_p99", 7.0, "base")
    assert (primary.low, primary.high, primary.samples) == (0.5, 1.0, 100)
    assert primary.source == "histograms of 2 endpoints"
    assert (base.samples, base.band) == (100, Band.OK)
    assert primary.window_s == 30.0
    assert primary.age_s == 1.0


def test_too_few_samples_are_unknown_and_say_so() -> None:
    fleet = Fleet({"latency_p99": P99})
    for at, n in ((1.0, 0.0), (6.0, 49.0)):
        fleet.page(0, at, n, (0.0, 0.0, n))
    seen = fleet.says("latency_p99", 7.0)
    assert (seen.value, seen.band, seen.samples) == (None, Band.UNKNOWN, 49)
    assert seen.reason == "49 samples in 30 s, 50 wanted"


def test_endpoints_with_other_buckets_are_left_out_and_counted() -> None:
    fleet = Fleet()
    for at, n in ((1.0, 0.0), (6.0, 60.0)):
        fleet.page(0, at, n, (n, n, n))
        odd = Page(histograms={"latency_p99": Histogram((2.0, inf), (n / 2, n))})
        fleet.look(1, at, probe="metrics", page=odd)
    seen = fleet.says("latency_p99", 7.0)
    assert seen.samples == 60
    assert seen.reason == "1 endpoints have other bucket edges and are left out: primary-1"


def test_stale_pages_are_unknown_not_zero() -> None:
    fleet = Fleet()
    fleet.page(0, 1.0, 0, queue_depth=3.0)
    fleet.page(1, 1.0, 0, queue_depth=4.0)
    assert fleet.says("queue_depth", 2.0).value == 7.0
    assert fleet.says("queue_depth", 20.0).value is None
    assert fleet.says("request_rate", 20.0).value is None


def test_a_gauge_that_is_read_seldom_holds_its_dwell() -> None:
    queue = {"queue_depth": Threshold(5, 10, 20, timedelta(seconds=15), timedelta(seconds=30))}
    fleet = Fleet(queue, every_s={"metrics": 15.0})
    for second in range(46):
        if second % 15 == 0:
            fleet.page(0, float(second), 0, queue_depth=50.0)
        seen = fleet.says("queue_depth", float(second))
    assert seen.band is Band.BREACH
    assert fleet.says("queue_depth", 90.0).value == 50.0
    assert fleet.says("queue_depth", 90.1).value is None


def test_a_gauge_that_two_probes_read_lasts_as_long_as_the_slower_one_needs() -> None:
    fleet = Fleet(every_s={"metrics": 2.0, "promql": 15.0})
    fleet.page(0, 0.0, 0, queue_depth=3.0)
    fleet.look(0, 1.0, probe="promql", page=Page(gauges={"queue_depth": 4.0}))
    assert fleet.says("queue_depth", 46.0).value == 4.0
    assert fleet.says("queue_depth", 46.1).value is None


def test_refused_is_down_at_once_until_something_is_served_again() -> None:
    fleet = Fleet()
    assert fleet.look(0, 1.0)
    assert fleet.look(1, 1.0)
    assert fleet.look(0, 2.0, Failure.REFUSED, "held")
    assert fleet.says("endpoints_down", 2.0).value == 0.5
    assert fleet.says("availability", 2.0).value == 0.5
    assert not fleet.look(0, 3.0, Failure.STATUS)
    assert not fleet.look(0, 4.0, None, "held")  # It listens, and has served nothing yet.
    assert fleet.look(0, 5.0)
    assert fleet.says("endpoints_down", 5.0).value == 0.0


def test_so_many_failures_make_it_down_and_so_many_successes_up() -> None:
    fleet = Fleet(patience={"http": Patience(failures=2, successes=3)})
    moved = [fleet.look(0, float(i), failure) for i, failure in enumerate(
        [None, Failure.TIMEOUT, None, Failure.TIMEOUT, Failure.STATUS, None, None, Failure.RESET, None, None, None]
    )]  # fmt: skip
    assert [i for i, changed in enumerate(moved) if changed] == [0, 4, 10]


def test_each_probe_has_a_patience_of_its_own() -> None:
    fleet = Fleet(patience={"http": Patience(failures=4), "inference": Patience(failures=2)})
    assert fleet.look(0, 0.0)
    assert not any(fleet.look(0, float(at), Failure.TIMEOUT) for at in (1, 2, 3))
    assert fleet.look(0, 4.0, Failure.TIMEOUT)
    assert fleet.look(0, 5.0)
    assert not fleet.look(0, 6.0, Failure.TIMEOUT, "inference")
    assert fleet.look(0, 7.0, Failure.TIMEOUT, "inference")


def test_a_look_that_was_asked_so_many_times_is_so_many_failures() -> None:
    fleet = Fleet()
    assert fleet.look(0, 1.0)
    record = fleet.records.find(fleet.all[0])
    assert record
    assert fleet.records.take(record, Look(fleet.all[0], "http", 2.0, 0.4, Failure.TIMEOUT, "silent", asked=3))
    assert record.down
    assert fleet.says("availability", 3.0).samples == 4


def test_looks_that_were_late_by_our_own_fault_are_no_failures_and_enough_of_them_are_unknown() -> None:
    fleet = Fleet()
    for i in (0, 1):
        fleet.look(i, 1.0)
    for at in range(2, 5):
        assert not fleet.look(0, float(at), Failure.PROBER)
    assert fleet.says("endpoints_down", 5.0).value == 0.0
    seen = fleet.says("availability", 5.0)
    assert seen.value is None
    assert seen.reason == "the prober itself was late: 3 looks say nothing"
    for at in range(5, 9):
        fleet.look(0, float(at))
    assert fleet.says("availability", 9.0).value == 1.0


def test_an_engine_that_completes_nothing_behind_a_live_health_check_is_stuck() -> None:
    fleet = Fleet()
    for i in (0, 1):
        fleet.page(i, 1.0, 10, requests_running=2.0)
        fleet.look(i, 1.0)
    fleet.page(0, 6.0, 20, requests_running=2.0)
    fleet.page(1, 6.0, 10, requests_running=0.0)
    assert fleet.says("token_progress", 6.0).value == 1.0  # Nothing runs on the second one, as far as it says.
    for at in (7.0, 9.0):
        fleet.look(1, at, Failure.TIMEOUT, "inference")
        fleet.look(1, at + 0.5)
    assert fleet.says("token_progress", 10.0).value == 0.5


def test_a_row_is_used_again_without_what_was_seen_of_the_one_before() -> None:
    fleet = Fleet()
    for at, n in ((1.0, 0.0), (6.0, 60.0)):
        fleet.page(0, at, n, (n, n, n), queue_depth=5.0)
    fleet.look(0, 6.0)
    other = Endpoint("primary-9", "primary", "http://primary-9")
    fleet.records.set_endpoints("primary", [fleet.all[1], other])
    record = fleet.records.find(other)
    assert record
    assert record.row == 0
    assert all(fleet.says(s, 7.0).value is None for s in ("latency_p99", "queue_depth", "availability", "request_rate"))
    assert fleet.records.find(fleet.all[0]) is None


@pytest.mark.parametrize("pool", ["primary", "empty"])
def test_a_pool_without_endpoints_is_unknown_but_for_having_lost_them(pool: str) -> None:
    fleet = Fleet()
    fleet.records.set_endpoints(pool, [])
    known = {e.signal: e.value for e in fleet.assessor.evidence(fleet.records, 1.0)[pool] if e.value is not None}
    assert known == ({"endpoints_down": 1.0} if pool == "primary" else {})


def test_a_value_of_a_partial_answer_says_so_until_the_answer_is_whole_again() -> None:
    fleet = Fleet()
    partial = Page(gauges={"queue_depth": 7.0, "latency_p99": 0.4}, partial="store gateway down")
    fleet.look(1, 1.0, probe="promql", page=partial)
    fleet.look(2, 1.0, probe="promql", page=Page(gauges={"queue_depth": 3.0}))
    for signal, value in (("queue_depth", 7.0), ("latency_p99", 0.4)):
        seen = fleet.says(signal, 1.5)
        assert (seen.value, seen.reason) == (value, "store gateway down")
    assert fleet.says("queue_depth", 1.5, "base").reason == ""
    fleet.look(1, 2.0, probe="promql", page=Page(gauges={"queue_depth": 8.0}))
    seen = fleet.says("queue_depth", 2.5)
    assert (seen.value, seen.reason) == (8.0, "")
    fleet.look(1, 3.0, probe="promql", page=partial)
    row = fleet.records.pools["primary"]["primary-1"].row
    fleet.records.set_endpoints("primary", fleet.all[:1])
    assert all(row not in rows for rows in fleet.records.partial.values())
