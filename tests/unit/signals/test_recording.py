"""What was recorded is read back as it was, and a line that cannot be read is named."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import UsageError
from controlplane.signals.recording import ALERT, Point, read_points, spell_points
from controlplane.signals.sample import CATALOGUE

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
points = st.builds(
    Point,
    at=st.integers(0, 10**6).map(lambda ms: T0 + timedelta(milliseconds=ms)),
    pool=st.sampled_from(["primary", "standby"]),
    signal=st.sampled_from(sorted(CATALOGUE)),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    samples=st.integers(0, 10**6),
)


@given(st.lists(points, min_size=1))
def test_what_is_written_is_read_back_in_the_order_of_its_times(recorded: list[Point]) -> None:
    read = read_points("".join(spell_points(recorded)), "r.jsonl")
    assert list(read) == sorted(recorded, key=lambda point: point.at)


def test_csv_is_read_too() -> None:
    text = "at,pool,signal,value,samples\n2026-03-03T10:00:00Z,primary,latency_p99,2.5,80\n"
    text += "2026-03-03T10:00:01Z,alert,Slow,1,\n2026-03-03T10:00:02Z,primary,latency_p99,,\n"
    assert read_points(text, "r.csv") == (
        Point(T0, "primary", "latency_p99", 2.5, 80),
        Point(T0 + timedelta(seconds=1), ALERT, "Slow", 1.0),
        Point(T0 + timedelta(seconds=2), "primary", "latency_p99", None),
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "r holds no recorded signal"),
        ("\n\n", "r holds no recorded signal"),
        ("at,pool\n", "r:1 has no column signal, value"),
        ("words\n", "r:1 has no column at"),
        ("{\n", "r:1 is not JSON"),
        ('{"at": "2026-03-03T10:00:00Z"}\n', "r:1 lacks 'pool'"),
        ('{"at": 5, "pool": "primary", "signal": "latency_p99", "value": 1}\n', "r:1 cannot be read"),
        ('{"at": "2026-03-03T10:00:00", "pool": "primary", "signal": "latency_p99", "value": 1}\n', "r:1 does not say"),
        ('{"at": "2026-03-03T10:00:00Z", "pool": "primary", "signal": "latensy", "value": 1}\n', "r:1 names no signal"),
        ("at,pool,signal,value\n2026-03-03T10:00:00Z,primary,latency_p99,fast\n", "r:2 cannot be read"),
        ('{"a": 1}\n[]\n', "r:1 lacks 'at'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_at_its_line(text: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_points(text, "r")
    assert refused.value.what.startswith(what)
    assert refused.value.fix
