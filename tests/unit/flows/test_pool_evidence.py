"""What was seen of each endpoint becomes evidence on its pool; no data is unknown, never well."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from math import inf, nan

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.flows.evidence import Assessor
from controlplane.flows.records import STALE_AFTER_S, EndpointRecord, Records
from controlplane.probes.probe import Failure, Histogram, Look, Page
from controlplane.signals.sample import CATALOGUE
from controlplane.slo.threshold import Band, Threshold
from controlplane.slo.verdict import Evidence

ONE, TWO = (Endpoint(f"primary-{i}", "primary", f"http://p{i}") for i in range(2))
THRESHOLDS = {
    "availability": Threshold(0.99, 0.95, 0.9, timedelta(seconds=10), timedelta(0)),
    "error_rate": Threshold(0.001, 0.005, 0.01, timedelta(seconds=30), timedelta(0), min_samples=50),
    "latency_p99": Threshold(0.5, 1.0, 2.0, timedelta(seconds=30), timedelta(0), min_samples=5),
}


class Pool:
    """One pool: its endpoints' records, and the evidence on it."""

    def __init__(self, thresholds: Mapping[str, Threshold]) -> None:
        self._records = Records(thresholds)
        self._assessor = Assessor(thresholds)

    @property
    def endpoints(self) -> Mapping[str, EndpointRecord]:
        return self._records.pools["primary"]

    def set_endpoints(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._records.set_endpoints("primary", endpoints)

    def take(self, look: Look) -> bool:
        return self._records.take(self.endpoints[look.endpoint.name], look)

    def evidence(self, now: float) -> tuple[Evidence, ...]:
        return self._assessor.evidence(self._records, now)["primary"]


def pool(*endpoints: Endpoint, thresholds: Mapping[str, Threshold] = THRESHOLDS) -> Pool:
    record = Pool(thresholds)
    record.set_endpoints(endpoints or (ONE,))
    return record


def take(record: Pool, look: Look) -> bool:
    return record.take(look)


def well(at: float, endpoint: Endpoint = ONE, probe: str = "http") -> Look:
    return Look(endpoint, probe, at, 0.01)


def ill(at: float, endpoint: Endpoint = ONE, failure: Failure = Failure.TIMEOUT, probe: str = "http") -> Look:
    return Look(endpoint, probe, at, 0.5, failure, "why")


def refused(at: float, endpoint: Endpoint = ONE) -> Look:
    return ill(at, endpoint, Failure.REFUSED, "held")


def listening(at: float, endpoint: Endpoint = ONE) -> Look:
    return well(at, endpoint, "held")


def scraped(at: float, page: Page, endpoint: Endpoint = ONE) -> Look:
    return Look(endpoint, "metrics", at, 0.01, page=page)


def down(record: Pool, name: str = "primary-0") -> bool:
    return record.endpoints[name].down


def answer_s(record: Pool) -> float | None:
    return record.endpoints["primary-0"].answer_s


def signal(record: Pool, name: str, now: float) -> Evidence:
    return next(e for e in record.evidence(now) if e.signal == name)


def test_before_any_look_everything_is_unknown_and_says_why() -> None:
    evidence = pool().evidence(0.0)
    assert {e.signal for e in evidence} == set(CATALOGUE)
    for each in evidence:
        assert (each.value, each.band) == (None, Band.UNKNOWN)
        assert each.reason


def test_a_refused_reconnect_proves_the_endpoint_down_at_once() -> None:
    record = pool()
    take(record, well(1))
    assert take(record, refused(2))
    assert down(record)
    assert signal(record, "endpoints_down", 2).value == 1.0
    assert signal(record, "availability", 2).value == 0.0


def test_an_endpoint_that_restarts_is_up_again_only_once_it_has_served() -> None:
    record = pool()
    take(record, well(1))
    take(record, refused(2))
    assert not take(record, listening(3))
    assert down(record)
    assert take(record, well(4))
    assert not down(record)
    assert signal(record, "endpoints_down", 4).value == 0.0


def test_what_failed_before_a_restart_is_not_held_against_the_new_process() -> None:
    record = pool()
    for at in (1, 2):
        take(record, ill(at))
    take(record, refused(3))
    take(record, listening(4))
    take(record, ill(4.5))
    take(record, well(5))
    assert signal(record, "availability", 5).value == 1.0


def test_a_success_that_was_on_its_way_when_the_process_died_does_not_bring_it_back() -> None:
    record = pool()
    take(record, well(1))
    take(record, refused(2))
    assert not take(record, well(2.01))
    assert down(record)


def test_a_connection_alone_proves_nothing_about_an_endpoint_nobody_has_asked() -> None:
    record = pool()
    take(record, listening(1))
    assert signal(record, "availability", 1).band is Band.UNKNOWN
    assert signal(record, "endpoints_down", 1).band is Band.UNKNOWN


def test_an_unreachable_network_is_no_hard_proof() -> None:
    record = pool()
    take(record, well(1))
    take(record, ill(2, failure=Failure.TIMEOUT, probe="held"))
    assert not down(record)


def test_three_failures_in_a_row_prove_an_endpoint_down_and_two_do_not() -> None:
    record = pool()
    take(record, well(1))
    assert [take(record, ill(at)) for at in (2, 3, 4, 5)] == [False, False, True, False]
    assert signal(record, "endpoints_down", 5).value == 1.0
    assert take(record, well(6))
    assert signal(record, "endpoints_down", 6).value == 0.0


def test_availability_is_the_share_of_looks_of_the_whole_pool_that_succeeded() -> None:
    record = pool(ONE, TWO)
    for at in range(1, 6):
        take(record, well(at))
        take(record, well(at, TWO) if at != 5 else ill(at, TWO))
    seen = signal(record, "availability", 5)
    assert (seen.value, seen.samples, seen.band) == (0.9, 10, Band.BREACH)


def test_a_pool_with_one_dead_endpoint_of_two_is_half_down() -> None:
    record = pool(ONE, TWO)
    take(record, well(1))
    take(record, well(1, TWO))
    take(record, refused(2, TWO))
    seen = signal(record, "endpoints_down", 2)
    assert (seen.value, seen.reason) == (0.5, "primary-1")


def test_how_many_are_down_is_unknown_until_every_endpoint_has_been_looked_at() -> None:
    record = pool(ONE, TWO)
    take(record, refused(1))
    assert signal(record, "endpoints_down", 1).value is None
    take(record, refused(2, TWO))
    assert signal(record, "endpoints_down", 2).value == 1.0


def test_availability_forgets_what_is_older_than_its_window() -> None:
    record = pool()
    take(record, ill(1))
    take(record, well(11.5))
    assert signal(record, "availability", 11.5).value == 1.0
    assert signal(record, "availability", 30).value is None


def counted(requests: float, errors: float, tokens: float = 0) -> Page:
    return Page(counters={"requests": requests, "server_errors": errors, "generated_tokens": tokens})


def test_the_error_rate_is_errors_over_answers_inside_the_window() -> None:
    record = pool(ONE, TWO)
    for endpoint in (ONE, TWO):
        take(record, scraped(0, counted(1000, 500), endpoint))
    take(record, scraped(10, counted(1080, 502), ONE))
    take(record, scraped(10, counted(1020, 500), TWO))
    seen = signal(record, "error_rate", 10)
    assert (seen.value, seen.samples, seen.band) == (0.02, 100, Band.BREACH)


def test_too_few_samples_make_a_signal_unknown_and_say_how_many_are_wanted() -> None:
    record = pool()
    take(record, scraped(0, counted(0, 0)))
    take(record, scraped(10, counted(49, 49)))
    seen = signal(record, "error_rate", 10)
    assert (seen.value, seen.band, seen.samples) == (None, Band.UNKNOWN, 49)
    assert seen.reason == "49 samples in 30 s, 50 wanted"


def test_no_traffic_has_no_error_rate() -> None:
    record = pool()
    take(record, scraped(0, counted(100, 0)))
    take(record, scraped(10, counted(100, 0)))
    assert signal(record, "error_rate", 10).reason == "no request was answered in the window"


def test_rates_are_per_second_of_the_time_they_were_seen_over() -> None:
    record = pool(ONE, TWO)
    for endpoint in (ONE, TWO):
        take(record, scraped(0, counted(0, 0, 0), endpoint))
        take(record, scraped(10, counted(50, 0, 400), endpoint))
    assert signal(record, "request_rate", 10).value == 10.0
    assert signal(record, "tokens_rate", 10).value == 80.0


def timed(*cumulative: float, edges: tuple[float, ...] = (0.5, 1.0, inf)) -> Page:
    return Page(histograms={"latency_p99": Histogram(edges, cumulative)})


def test_the_quantile_is_taken_over_the_merged_histograms_of_the_pool() -> None:
    record = pool(ONE, TWO)
    for endpoint, grown in ((ONE, (90.0, 90.0, 90.0)), (TWO, (0.0, 10.0, 10.0))):
        take(record, scraped(0, timed(0, 0, 0), endpoint))
        take(record, scraped(10, timed(*grown), endpoint))
    seen = signal(record, "latency_p99", 10)
    assert seen.value == pytest.approx(0.95)
    assert (seen.low, seen.high, seen.samples) == (0.5, 1.0, 100)


def test_an_endpoint_with_other_bucket_edges_is_left_out_and_named() -> None:
    record = pool(ONE, TWO)
    take(record, scraped(0, timed(0, 0, 0)))
    take(record, scraped(10, timed(10, 10, 10)))
    for at, values in ((0, (0.0, 0.0)), (10, (5.0, 5.0))):
        take(record, scraped(at, timed(*values, edges=(9.0, inf)), TWO))
    seen = signal(record, "latency_p99", 10)
    assert seen.samples == 10
    assert seen.reason == "1 endpoints have other bucket edges and are left out: primary-1"


def test_an_engine_that_changes_its_edges_starts_its_histogram_again() -> None:
    record = pool()
    take(record, scraped(0, timed(0, 0, 0)))
    take(record, scraped(5, timed(100, 100, 100, edges=(0.25, 0.5, inf))))
    assert signal(record, "latency_p99", 5).value is None
    take(record, scraped(10, timed(110, 110, 110, edges=(0.25, 0.5, inf))))
    assert signal(record, "latency_p99", 10).samples == 10


def test_queues_add_up_and_the_fullest_cache_counts() -> None:
    record = pool(ONE, TWO)
    take(record, scraped(0, Page(gauges={"queue_depth": 3, "kv_cache_utilization": 0.4})))
    take(record, scraped(0, Page(gauges={"queue_depth": 4, "kv_cache_utilization": 0.9}), TWO))
    assert signal(record, "queue_depth", 0).value == 7
    assert signal(record, "kv_cache_utilization", 0).value == 0.9


def test_a_gauge_that_is_not_read_any_more_is_unknown() -> None:
    record = pool()
    take(record, scraped(0, Page(gauges={"queue_depth": 3})))
    assert signal(record, "queue_depth", STALE_AFTER_S).value == 3
    assert signal(record, "queue_depth", STALE_AFTER_S + 0.1).band is Band.UNKNOWN


def test_a_page_does_not_count_for_availability() -> None:
    record = pool()
    take(record, scraped(0, Page()))
    assert signal(record, "availability", 0).value is None


@pytest.mark.parametrize("strange", [nan, inf])
def test_numbers_that_are_none_make_signals_unknown_and_never_stop_the_judging(strange: float) -> None:
    thresholds = THRESHOLDS | {"kv_cache_utilization": replace(THRESHOLDS["latency_p99"], min_samples=1)}
    record = pool(thresholds=thresholds)
    take(record, scraped(0, counted(0, 0, 0)))
    take(record, scraped(0, timed(0, 0, 0)))
    take(record, scraped(5, counted(strange, strange, strange)))
    take(record, scraped(5, timed(strange, strange, strange)))
    take(record, scraped(5, Page(gauges={"kv_cache_utilization": nan})))
    for name in ("error_rate", "latency_p99", "kv_cache_utilization"):
        assert signal(record, name, 5).band is not Band.OK


def test_the_inventory_is_followed_and_what_stays_keeps_its_history() -> None:
    record = pool(ONE, TWO)
    take(record, well(1))
    record.set_endpoints((ONE,))
    assert list(record.endpoints) == ["primary-0"]
    assert signal(record, "availability", 1).samples == 1
    record.set_endpoints((replace(ONE, url="http://elsewhere"),))
    assert signal(record, "availability", 1).value is None


def test_an_answer_tells_how_long_it_took_and_a_failure_what_it_was() -> None:
    record = pool()
    take(record, Look(ONE, "inference", 1, 0.25, first_token_s=0.1, tokens=4))
    assert answer_s(record) == 0.25
    seen = record.endpoints["primary-0"]
    assert (seen.first_token_s, seen.tokens_per_s) == (0.1, 16.0)
    take(record, ill(2, probe="inference"))
    assert answer_s(record) is None
    assert (seen.first_token_s, seen.tokens_per_s) == (None, None)
    assert record.endpoints["primary-0"].detail == "timeout: why"


def test_a_pool_that_everybody_left_is_down_and_one_that_never_had_anybody_is_unknown() -> None:
    record = Pool(THRESHOLDS)
    record.set_endpoints(())
    assert {e.value for e in record.evidence(1.0)} == {None}
    record.set_endpoints((ONE,))
    record.set_endpoints(())
    down = next(e for e in record.evidence(2.0) if e.signal == "endpoints_down")
    assert (down.value, down.reason) == (1.0, "every endpoint has left the pool")
    record.set_endpoints((TWO,))
    down = next(e for e in record.evidence(3.0) if e.signal == "endpoints_down")
    assert down.value is None, "not looked at yet"
