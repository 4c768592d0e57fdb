"""What connects (`tcp` on the page) say of an endpoint, beside requests and held connections."""

from controlplane.fleet.model import Endpoint
from controlplane.flows.evidence import Assessor
from controlplane.flows.records import EndpointRecord, Patience, Records
from controlplane.probes.probe import Failure, Look

ONE = Endpoint("primary-0", "primary", "http://p0")


class Watched:
    """One endpoint and what is known of it."""

    def __init__(self, **patience: Patience) -> None:
        self._records = Records({}, patience)
        self._records.set_endpoints("primary", (ONE,))
        self._now = 0.0

    @property
    def record(self) -> EndpointRecord:
        return self._records.pools["primary"]["primary-0"]

    def saw(self, probe: str, failure: Failure | None = None, times: int = 1) -> bool:
        """Take looks in; tells whether the endpoint is down now."""
        for _ in range(times):
            self._now += 0.1
            self._records.take(self.record, Look(ONE, probe, self._now, 0.01, failure, "why" if failure else ""))
        return self.record.down

    def says(self, signal: str) -> float | None:
        found = Assessor({}).evidence(self._records, self._now)["primary"]
        return next(e.value for e in found if e.signal == signal)


BOTH = {"http": Patience(3, 1), "tcp": Patience(3, 2)}
ALONE = {"tcp": Patience(3, 2)}


def test_enough_connects_in_a_row_that_fail_put_an_endpoint_down_and_successes_take_that_back() -> None:
    watched = Watched(**BOTH)
    assert not watched.saw("http")
    assert not watched.saw("tcp", Failure.TIMEOUT, 2)
    assert watched.saw("tcp", Failure.TIMEOUT)
    assert watched.record.detail == "timeout: why"
    assert watched.says("endpoints_down") == 1.0
    assert watched.saw("tcp")
    assert not watched.saw("tcp")
    assert watched.says("endpoints_down") == 0.0
    assert watched.record.detail == ""


def test_a_connect_that_stands_takes_nothing_back_that_requests_or_a_refusal_found() -> None:
    hung = Watched(**BOTH)
    assert hung.saw("http", Failure.TIMEOUT, 3)
    assert hung.saw("tcp", None, 10)
    assert hung.says("availability") == 0.0
    dead = Watched(**BOTH)
    assert dead.saw("held", Failure.REFUSED)
    assert dead.saw("tcp", None, 10)
    dead.saw("held")
    assert not dead.saw("http")


def test_both_found_it_down_and_connects_alone_do_not_bring_it_back() -> None:
    watched = Watched(**BOTH)
    watched.saw("tcp", Failure.TIMEOUT, 3)
    watched.saw("http", Failure.TIMEOUT, 3)
    assert watched.saw("tcp", None, 10)
    assert not watched.saw("http")
    assert not watched.saw("tcp", Failure.TIMEOUT, 2)


def test_an_answered_request_outweighs_connects_that_fail() -> None:
    watched = Watched(**BOTH)
    for _ in range(5):
        watched.saw("tcp", Failure.REFUSED, 2)
        assert not watched.saw("http")
    watched.saw("tcp", Failure.REFUSED, 3)
    assert watched.record.down
    assert not watched.saw("http")


def test_connects_are_no_share_of_availability() -> None:
    watched = Watched(**BOTH)
    watched.saw("http")
    watched.saw("tcp", Failure.TIMEOUT, 9)
    assert watched.says("availability") == 1.0
    fresh = Watched(**BOTH)
    fresh.saw("tcp", None, 9)
    assert (fresh.says("availability"), fresh.says("endpoints_down")) == (None, None)


def test_where_nothing_asks_a_request_connects_are_what_there_is_to_go_by() -> None:
    watched = Watched(**ALONE)
    watched.saw("tcp", None, 2)
    assert watched.says("endpoints_down") == 0.0
    assert watched.saw("held", Failure.REFUSED)
    watched.saw("held")
    assert watched.saw("tcp")
    assert not watched.saw("tcp")
    assert watched.says("endpoints_down") == 0.0
    assert not watched.record.refused


def test_a_connect_that_failed_by_our_own_fault_changes_nothing() -> None:
    watched = Watched(**BOTH)
    watched.saw("http")
    assert not watched.saw("tcp", Failure.PROBER, 10)
