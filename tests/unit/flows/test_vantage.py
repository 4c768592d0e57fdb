"""Whose way is broken, the users' or ours, is told by what the gateway counted."""

import pytest

from controlplane.flows.vantage import ASKED_ENOUGH, VOUCHED_S, Vantage
from controlplane.probes.gateway_counts import Count
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence

LOST = (
    Evidence("availability", 0.1, Band.BREACH, 20, 0.0, 0.2, "looks", "", 10.0, 0.1),
    Evidence("endpoints_down", 1.0, Band.BREACH, 2, None, None, "looks", "a, b", None, 0.1),
    Evidence("queue_depth", 3.0, Band.OK, 2, None, None, "2 endpoints", "", None, 0.1),
)
WELL = (
    Evidence("availability", 1.0, Band.OK, 20, 1.0, 1.0, "looks", "", 10.0, 0.1),
    Evidence("endpoints_down", 0.0, Band.OK, 2, None, None, "looks", "", None, 0.1),
)


def counted(*readings: tuple[float, Count]) -> Vantage:
    vantage = Vantage()
    for at, count in readings:
        vantage.asked()
        vantage.take(at, {"primary": count})
    return vantage


def ask(vantage: Vantage, times: int = ASKED_ENOUGH) -> Vantage:
    """Ask a gateway that says nothing."""
    for _ in range(times):
        vantage.asked()
    return vantage


def values(evidence: tuple[Evidence, ...]) -> dict[str, float | None]:
    return {seen.signal: seen.value for seen in evidence}


def answering(own: float, others: float = 0.0, failed: float = 0.0, errors: float = 0.0) -> Vantage:
    """Return a gateway that counted so much in each of the fifths of a second from 100 to 104 s."""
    steps = [(100 + n / 5, Count(own * n, (own + others) * n, failed * n, errors * n)) for n in range(21)]
    return counted(*steps)


def test_a_pool_that_answers_the_gateway_is_not_lost_because_our_looks_are() -> None:
    weighed = answering(own=10).weigh("primary", LOST, lambda: 103.0)
    assert values(weighed) == {"availability": None, "endpoints_down": None, "queue_depth": 3.0}
    assert {seen.band for seen in weighed[:2]} == {Band.UNKNOWN}
    assert "the gateway got 40 answers" in weighed[0].reason


@pytest.mark.parametrize(
    ("vantage", "silent_from"),
    [
        (counted(), 103.0),
        (ask(answering(own=10)), 103.0),
        (answering(own=0, others=10), 103.0),
        (answering(own=2, others=10), 103.0),
        (answering(own=0, errors=10), 103.0),
        (answering(own=10), None),
    ],
    ids=[
        "counts nothing",
        "answers no more",
        "others answer",
        "others answer most",
        "errors",
        "all refused",
    ],
)
def test_a_lost_pool_stays_lost_unless_the_gateway_vouches_for_it(vantage: Vantage, silent_from: float | None) -> None:
    assert vantage.weigh("primary", LOST, lambda: silent_from) == LOST


def test_a_pool_that_is_lost_after_we_were_cut_off_is_vouched_for_no_longer_than_promised() -> None:
    steps = [(100 + n / 5, Count(min(n, 20.0), min(n, 20.0))) for n in range(40)]  # It answers until 104 s.
    vantage, lost_at = Vantage(), []
    for at, count in steps:
        vantage.asked()
        vantage.take(at, {"primary": count})
        if vantage.weigh("primary", LOST, lambda: 101.0) == LOST:
            lost_at.append(at)
    since = min(at for at in lost_at if at > 104.0)
    assert since <= 104.0 + VOUCHED_S + 0.2


def test_a_pool_that_only_the_gateway_cannot_reach_is_not_available() -> None:
    seen = {e.signal: e for e in answering(own=0, others=10, failed=2).weigh("primary", WELL, lambda: None)}
    assert (seen["availability"].value, seen["availability"].band) == (0.0, Band.BREACH)
    assert seen["availability"].source == "answers counted by the gateway"
    assert seen["endpoints_down"].value == 1.0, "not one answer in three seconds: nothing of it is up for its users"


def test_a_pool_that_nobody_stands_in_for_is_out_of_reach_when_users_get_errors_alone() -> None:
    cut = answering(own=0, failed=4, errors=2)
    seen = {e.signal: e for e in cut.weigh("primary", WELL, lambda: None)}
    assert (seen["endpoints_down"].value, seen["availability"].value) == (1.0, 0.0)
    assert seen["endpoints_down"].reason.endswith("60 connections failed, nobody answered in its place")


def test_a_pool_that_is_full_and_answers_some_is_not_out_of_reach() -> None:
    assert answering(own=1, failed=1, errors=9).weigh("primary", WELL, lambda: None) == WELL
    assert answering(own=1, errors=9).weigh("primary", LOST, lambda: 103.0) != LOST


def test_a_pool_that_the_gateway_seldom_reaches_is_not_down() -> None:
    seen = {e.signal: e for e in answering(own=2, others=8, failed=2).weigh("primary", WELL, lambda: None)}
    assert seen["availability"].value == pytest.approx(0.2)
    assert seen["endpoints_down"] == WELL[1]


@pytest.mark.parametrize(
    "vantage",
    [answering(own=0, others=10), answering(own=6, others=4, failed=2), answering(own=0, others=1, failed=1)],
    ids=["full, not cut off", "reached more often than not", "too few requests to tell"],
)
def test_others_may_answer_for_a_pool_that_the_gateway_reaches(vantage: Vantage) -> None:
    assert vantage.weigh("primary", WELL, lambda: None) == WELL


def test_a_gateway_that_started_anew_is_read_from_there() -> None:
    vantage = answering(own=10)
    vantage.take(104.2, {"primary": Count(1, 1)})
    weighed = vantage.weigh("primary", LOST, lambda: 103.0)
    assert weighed[1].reason == "our looks fail, and the gateway has not been read twice since"
    vantage.take(104.4, {"primary": Count(1, 1)})
    assert vantage.weigh("primary", LOST, lambda: 103.0) == LOST, "what it counted before it started vouches for nobody"


def test_an_overtaken_answer_is_no_new_start() -> None:
    vantage = answering(own=10)
    vantage.take(103.9, {"primary": Count(195, 195)})
    assert "the gateway got 40 answers" in vantage.weigh("primary", LOST, lambda: 103.0)[0].reason


def test_while_we_stand_still_the_gateway_is_not_silent() -> None:
    vantage = ask(answering(own=10), 1)  # Its answer waits to be read: whoever judges may come before it, however late.
    assert values(vantage.weigh("primary", LOST, lambda: 103.0))["endpoints_down"] is None


def test_what_was_answered_while_we_stood_still_vouches_and_not_for_longer_than_promised() -> None:
    vantage = answering(own=10)
    vantage.take(107.0, {"primary": Count(340, 340)})
    assert "the gateway got 140 answers" in vantage.weigh("primary", LOST, lambda: 103.0)[0].reason
    for at in (107.2, 107.0 + VOUCHED_S):
        vantage.take(at, {"primary": Count(340, 340)})
    assert vantage.weigh("primary", LOST, lambda: 103.0) == LOST


def test_a_pool_that_just_fell_silent_is_lost_only_once_the_gateway_was_read_twice_since() -> None:
    vantage = counted((100.0, Count(5, 5)), (104.0, Count(50, 50)))
    assert values(vantage.weigh("primary", LOST, lambda: 103.5))["endpoints_down"] is None, "read once since"
    ask(vantage, 1).take(104.2, {"primary": Count(50, 50)})
    assert vantage.weigh("primary", LOST, lambda: 103.5) == LOST


def test_a_pool_whose_endpoints_fail_by_turns_is_not_just_fallen_silent_for_ever() -> None:
    vantage, lost_at = Vantage(), []
    for n in range(20):
        vantage.asked()
        vantage.take(100 + n / 5, {"primary": Count()})
        if vantage.weigh("primary", LOST, lambda n=n: 100 + n / 5) == LOST:  # type: ignore[misc]
            lost_at.append(n)
    assert lost_at == list(range(ASKED_ENOUGH, 20))


def test_each_loss_is_given_its_own_time() -> None:
    vantage = counted((100.0, Count()))
    for _ in range(2):
        assert vantage.weigh("primary", LOST, lambda: 103.0) != LOST
        for n in range(ASKED_ENOUGH):
            ask(vantage, 1).take(101.0 + n / 5, {"primary": Count()})
        assert vantage.weigh("primary", LOST, lambda: 103.0) == LOST
        assert vantage.weigh("primary", WELL, lambda: 103.0) == WELL


def test_a_gateway_that_answers_again_is_heard_again() -> None:
    vantage = ask(answering(own=10))
    assert vantage.weigh("primary", LOST, lambda: 103.0) == LOST
    vantage.take(105.2, {"primary": Count(260, 260)})
    assert vantage.weigh("primary", LOST, lambda: 103.0) != LOST
