"""A fault that can be seen is seen, however long the machine stands still between two looks."""

import pytest

from controlplane.chaos.substrates import looks
from controlplane.chaos.substrates.looks import seen_in_time

AT_ONCE = 0.0


class Sights:
    """What each look shows, and how long it takes, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *sights: tuple[float, str | None]) -> None:
        self.now = 100.0
        self.left = list(sights)
        monkeypatch.setattr(looks, "monotonic", lambda: self.now)

    async def look(self) -> str | None:
        took_s, seen = self.left.pop(0)
        self.now += took_s
        return seen


async def test_what_is_seen_at_once_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sights = Sights(monkeypatch, (0.1, "gone"), (0.1, "never asked"))
    assert await seen_in_time(sights.look, 2.0, AT_ONCE) == "gone"
    assert len(sights.left) == 1


async def test_after_a_stall_as_long_as_the_time_there_is_another_look(monkeypatch: pytest.MonkeyPatch) -> None:
    sights = Sights(monkeypatch, (60.0, ""), (0.1, "gone"))
    assert await seen_in_time(sights.look, 2.0, AT_ONCE) == "gone"


async def test_what_is_not_seen_by_a_look_after_the_time_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    sights = Sights(monkeypatch, (1.5, ""), (1.5, ""), (1.5, ""), (0.1, "too late"))
    assert await seen_in_time(sights.look, 2.0, AT_ONCE) == ""
    assert sights.left == [(0.1, "too late")]


async def test_where_there_is_nothing_to_wait_for_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    sights = Sights(monkeypatch, (0.1, None), (0.1, "never asked"))
    assert await seen_in_time(sights.look, 2.0, AT_ONCE) == ""
    assert len(sights.left) == 1
