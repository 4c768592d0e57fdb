"""What the signals showed around an incident is kept small, and loses neither a peak nor a gap."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controlplane.incidents.history import MAX_POINTS, MAX_TRACES, Event, Trace, compact, merge, thin
from controlplane.signals.recording import ALERT, Point

T0 = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
OVER = Event("i", T0, T0 + timedelta(minutes=5))


def point(seconds: float, value: float | None = 1.0, pool: str = "primary", signal: str = "error_rate") -> Point:
    return Point(T0 + timedelta(seconds=seconds), pool, signal, value)


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e6)), min_size=1, max_size=3000), st.integers(10, 300))
def test_a_thinned_trail_is_small_keeps_its_extremes_and_its_order(values: list[float | None], limit: int) -> None:
    trail = tuple((float(at), value) for at, value in enumerate(values))
    thinned = thin(trail, limit)
    assert len(thinned) <= max(limit, 8)
    assert set(thinned) <= set(trail)
    assert [at for at, _ in thinned] == sorted(at for at, _ in thinned)
    known = [value for value in values if value is not None]
    if known:
        kept = [value for _, value in thinned if value is not None]
        assert (min(kept), max(kept)) == (min(known), max(known))
    if None in values:
        assert None in [value for _, value in thinned]


def test_only_the_time_around_it_and_the_wanted_signals_are_kept() -> None:
    points = (point(-200), point(-60), point(0, signal="queue_depth"), point(10), point(400), point(5, pool=ALERT))
    (trace,) = compact(points, OVER, ("error_rate",))
    assert [at - T0.timestamp() for at, _ in trace.points] == [-60, 10]


def test_too_many_pools_leave_out_the_least_telling() -> None:
    points = [point(0, pool=f"p{n}", signal=name) for n in range(30) for name in ("queue_depth", "error_rate")]
    kept = compact(points, OVER, ("error_rate", "queue_depth"))
    assert len(kept) == MAX_TRACES
    assert [trace.signal for trace in kept][:30] == ["error_rate"] * 30


def test_what_was_kept_and_what_came_since_are_one() -> None:
    older = (Trace("primary", "error_rate", ((0.0, 0.1), (1.0, 0.2))),)
    newer = (Trace("primary", "error_rate", ((1.0, 0.9), (2.0, 0.3))), Trace("gateway", "error_rate", ((2.0, 0.0),)))
    assert merge(older, newer) == (
        Trace("primary", "error_rate", ((0.0, 0.1), (1.0, 0.2), (2.0, 0.3))), newer[1],
    )  # fmt: skip
    long = (Trace("primary", "error_rate", tuple((float(n), float(n)) for n in range(5000))),)
    assert len(merge(long, newer)[0].points) <= MAX_POINTS


def test_a_history_grows_while_it_goes_on_and_a_moment_longer() -> None:
    assert Event("i", T0, None).wanted(T0 + timedelta(days=9))
    assert OVER.wanted(T0 + timedelta(minutes=6))
    assert not OVER.wanted(T0 + timedelta(minutes=8))


def test_the_value_at_a_moment_is_the_newest_until_then() -> None:
    trace = Trace("primary", "error_rate", ((T0.timestamp(), 0.1), (T0.timestamp() + 10, None)))
    assert trace.at(T0 - timedelta(seconds=1)) is None
    assert trace.at(T0 + timedelta(seconds=9)) == 0.1
    assert trace.at(T0 + timedelta(seconds=11)) is None
