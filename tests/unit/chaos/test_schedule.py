"""Freeze windows, the names of dates, and what is overdue."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from controlplane.chaos.schedule import Freeze, frozen, overdue, read_freeze, slot_name

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)


def test_both_ends_of_a_freeze_belong_to_it() -> None:
    freeze = read_freeze("2026-12-24/2027-01-02")
    assert freeze == Freeze(date(2026, 12, 24), date(2027, 1, 2))
    assert frozen([freeze], date(2026, 12, 24)) == frozen([freeze], date(2027, 1, 2)) == "2026-12-24/2027-01-02"
    assert frozen([freeze], date(2026, 12, 23)) == frozen([freeze], date(2027, 1, 3)) == frozen([], T0.date()) == ""


def test_a_freeze_may_be_one_day() -> None:
    assert read_freeze("2026-11-27") == Freeze(date(2026, 11, 27), date(2026, 11, 27))


@pytest.mark.parametrize("text", ["", "soon", "2026-12-24/", "2026-12-24/2026-12-23", "2026-02-30", "/2026-01-01"])
def test_what_is_no_freeze_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_freeze(text)


def test_a_date_has_the_same_name_everywhere_and_dates_have_different_ones() -> None:
    shanghai = T0.astimezone(timezone(timedelta(hours=8)))
    assert slot_name("monthly", shanghai) == "monthly/2026-03-03T18:00+0800"
    assert slot_name("monthly", T0) != slot_name("monthly", T0 + timedelta(minutes=1))


def test_what_has_not_passed_for_too_long_is_overdue() -> None:
    days = timedelta(days=38)
    assert not overdue(T0, T0 - days, T0 + days, days)
    assert overdue(T0, T0, T0 + days + timedelta(seconds=1), days)
    assert not overdue(None, T0, T0 + days, days)
    assert overdue(None, T0, T0 + days + timedelta(seconds=1), days)
