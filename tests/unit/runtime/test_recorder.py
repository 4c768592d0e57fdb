"""The last minutes are kept, what does not change is written seldom, and what ends is said."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.degradation.matrix import Alerts, AtLeast
from controlplane.runtime import recorder
from controlplane.runtime.recorder import Recorder
from controlplane.signals.recording import ALERT, Point
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, Verdict

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)


class Subject:
    def __init__(self) -> None:
        self.now = T0
        self.alerts: Alerts = frozenset()
        self.recorder = Recorder(lambda: self.now, lambda: self.alerts)

    def judge(self, value: float | None, passed: float = 0.5) -> None:
        self.now += timedelta(seconds=passed)
        seen = Evidence("latency_p99", value, Band.UNKNOWN if value is None else Band.OK, 80)
        self.recorder.judged({"primary": Verdict("primary", Band.OK, (seen,))})

    def values(self, lasts: float = 600) -> list[float | None]:
        return [point.value for point in self.recorder.points(timedelta(seconds=lasts))]


def test_what_changes_is_kept_at_once_and_what_does_not_every_other_second() -> None:
    subject = Subject()
    for _ in range(9):
        subject.judge(0.2)
    assert subject.values() == [0.2, 0.2, 0.2]
    subject.judge(0.3)
    assert subject.values() == [0.2, 0.2, 0.2, 0.3]


def test_a_value_that_becomes_unknown_is_said_once_and_one_that_never_was_not_at_all() -> None:
    subject = Subject()
    for value in (None, None, 0.2, None, None, None):
        subject.judge(value, passed=3.0)
    assert subject.values() == [0.2, None]


def test_an_alert_is_kept_when_it_begins_and_when_it_ends() -> None:
    subject = Subject()
    for firing in (frozenset({"Slow"}), frozenset({"Slow"}), frozenset[str]()):
        subject.alerts = firing
        subject.judge(None)
    told = subject.recorder.points(timedelta(minutes=1))
    assert [(p.pool, p.signal, p.value) for p in told] == [(ALERT, "Slow", 1.0), (ALERT, "Slow", 0.0)]


def test_an_alert_that_fired_before_the_window_fires_from_its_beginning() -> None:
    subject = Subject()
    subject.alerts = frozenset({"Slow"})
    subject.judge(None)
    subject.judge(0.2, passed=120.0)
    told = subject.recorder.points(timedelta(minutes=1))
    assert told[0] == Point(subject.now - timedelta(minutes=1), ALERT, "Slow", 1.0)
    assert told[1].value == 0.2


def test_an_alert_that_began_before_anything_that_is_kept_fires_from_the_beginning_of_every_window() -> None:
    subject = Subject()
    subject.alerts = frozenset({"Slow", "Over"})
    subject.judge(0.2)
    subject.alerts = frozenset({"Slow"})
    subject.judge(0.2)
    began = T0 + timedelta(seconds=0.5)
    subject.judge(0.2, passed=31 * 60.0)
    (told, seen) = subject.recorder.points(timedelta(minutes=5))
    assert told == Point(subject.now - timedelta(minutes=5), ALERT, "Slow", 1.0)
    assert seen.value == 0.2
    assert subject.recorder.points(timedelta(hours=1))[0] == Point(began, ALERT, "Slow", 1.0), "and not before it began"
    subject.alerts = frozenset()
    subject.judge(0.2, passed=1.0)
    told = subject.recorder.points(timedelta(seconds=0.1))[-1]
    assert (told.signal, told.value) == ("Slow", 0.0)
    subject.judge(0.2, passed=31 * 60.0)
    assert [point.signal for point in subject.recorder.points(timedelta(hours=1))] == ["latency_p99"]


def test_an_alert_outlives_its_beginning_where_there_are_too_many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_POINTS", 5)
    subject = Subject()
    subject.alerts = frozenset({"Slow"})
    for i in range(20):
        subject.judge(float(i))
    told = subject.recorder.points(timedelta(seconds=1.0))
    assert [(p.signal, p.value) for p in told] == [("Slow", 1.0), *(("latency_p99", float(i)) for i in (17, 18, 19))]


def test_while_nobody_can_tell_what_fires_no_alert_has_ended() -> None:
    subject = Subject()
    for firing in (frozenset({"Slow"}), None, AtLeast({"Failing"}), AtLeast(), frozenset({"Failing"})):
        subject.alerts = firing
        subject.judge(None)
    told = [(p.signal, p.value) for p in subject.recorder.points(timedelta(minutes=1))]
    assert told == [("Slow", 1.0), ("Failing", 1.0), ("Slow", 0.0)]


def test_only_the_last_minutes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "KEPT", timedelta(seconds=10))
    subject = Subject()
    for i in range(20):
        subject.judge(float(i), passed=1.0)
    assert subject.values() == [float(i) for i in range(9, 20)]
    assert subject.values(lasts=2.5) == [17.0, 18.0, 19.0]
