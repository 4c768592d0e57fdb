"""Token buckets: what they let through, when they fill, and that they forget."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.security import limits
from controlplane.security.limits import Limiter, Repeats


def test_a_burst_is_let_through_and_then_one_at_a_time() -> None:
    limiter = Limiter(per_s=0.5, burst=3)
    assert [limiter.take("a", 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 2.0]
    assert limiter.take("b", 0.0) == 0.0, "others have buckets of their own"
    assert limiter.take("a", 1.0) == 1.0
    assert limiter.take("a", 2.0) == 0.0
    assert limiter.wait_s("a", 2.0) == 2.0


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(0.1, 5), st.integers(1, 10))
def test_never_more_than_the_burst_and_what_has_flowed_in_since(steps: list[float], per_s: float, burst: int) -> None:
    limiter, now_s, taken = Limiter(per_s, burst), 0.0, 0
    for step in steps:
        now_s += step
        taken += limiter.take("a", now_s) == 0.0
        assert taken <= burst + now_s * per_s + 1e-6


def test_so_many_keys_are_remembered_and_no_more() -> None:
    limiter = Limiter(per_s=1, burst=1)
    for number in range(limits.MOST_KEYS + 5):
        limiter.take(str(number), 0.0)
    assert len(limiter._left) == limits.MOST_KEYS
    assert limiter.take("0", 0.0) == 0.0, "it was forgotten"


def test_repeats_are_held_back_and_counted() -> None:
    repeats = Repeats(every_s=60)
    assert [repeats.tell("a", at) for at in (0.0, 1.0, 2.0)] == [0, None, None]
    assert repeats.tell("b", 2.0) == 0
    assert repeats.tell("a", 61.0) == 2
    assert repeats.tell("a", 130.0) == 0
