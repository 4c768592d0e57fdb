"""Looks are spread over their interval, each endpoint at a place of its own, and lateness never piles them up."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from time import sleep
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane.fleet.model import Endpoint
from controlplane.runtime import scheduler
from controlplane.runtime.scheduler import PACE_TICK_S, Pace

FLEET = tuple(Endpoint(f"e{i}", "primary", f"http://e{i}") for i in range(200))


@pytest.fixture
async def never_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have time pass as on a machine that never stands still: only while the whole loop waits, and then at once."""
    loop: Any = asyncio.get_running_loop()
    now, select = loop.time(), loop._selector.select

    def wait(timeout: float | None = None) -> Any:
        nonlocal now
        now += timeout or 0.0
        return select(0 if timeout else timeout)

    monkeypatch.setattr(loop._selector, "select", wait)
    monkeypatch.setattr(loop, "time", lambda: now)
    monkeypatch.setattr(scheduler, "monotonic", loop.time)


@pytest.mark.usefixtures("never_late")
async def test_each_is_called_once_an_interval_and_no_tick_calls_many() -> None:
    calls: Counter[str] = Counter()
    ticks: Counter[int] = Counter()
    loop = asyncio.get_running_loop()

    def call(endpoint: Endpoint) -> None:
        calls[endpoint.name] += 1
        ticks[int(loop.time() / PACE_TICK_S)] += 1

    pace = Pace("http", timedelta(seconds=0.5), lambda: FLEET, call)
    pace.start()
    await asyncio.sleep(1.2)
    pace.stop()
    assert set(calls) == {e.name for e in FLEET}
    assert set(calls.values()) <= {2, 3}
    assert max(ticks.values()) < len(FLEET) / 4


@pytest.mark.usefixtures("never_late")
async def test_jitter_puts_calls_off_by_no_more_than_its_share() -> None:
    calls: dict[str, list[float]] = {}
    loop = asyncio.get_running_loop()

    def call(endpoint: Endpoint) -> None:
        calls.setdefault(endpoint.name, []).append(loop.time())

    pace = Pace("http", timedelta(seconds=0.4), lambda: FLEET, call, jitter=0.25)
    pace.start()
    await asyncio.sleep(2.0)
    pace.stop()
    gaps = [b - a for times in calls.values() for a, b in pairwise(times)]
    assert len(calls) == len(FLEET)
    assert min(gaps) < 0.39
    assert max(gaps) > 0.41


async def test_what_is_a_whole_interval_late_is_left_out_and_the_loop_runs_while_it_catches_up() -> None:
    calls: list[str] = []
    pace = Pace("http", timedelta(seconds=0.2), lambda: FLEET, lambda e: calls.append(e.name))
    pace.start()
    await asyncio.sleep(0.05)
    sleep(0.5)  # noqa: ASYNC251 - the loop stands still: this is what the test is about
    before = len(calls)
    turns = 0
    while len(calls) < before + len(FLEET) and turns < 1000:
        await asyncio.sleep(0)
        turns += 1
    pace.stop()
    assert pace.left_out > 0
    assert turns > 3


@pytest.mark.usefixtures("never_late")
async def test_a_call_that_raises_harms_no_other_and_members_follow_the_inventory() -> None:
    calls: set[str] = set()
    members = [FLEET[:50]]

    def call(endpoint: Endpoint) -> None:
        calls.add(endpoint.name)
        if endpoint is FLEET[0]:
            raise RuntimeError("broken")

    pace = Pace("http", timedelta(seconds=0.1), lambda: members[0], call)
    with capture_logs() as logs:
        pace.start()
        await asyncio.sleep(0.25)
        assert calls == {e.name for e in FLEET[:50]}
        members[0] = FLEET[50:60]
        await asyncio.sleep(0.05)
        calls.clear()
        await asyncio.sleep(0.25)
        pace.stop()
    assert calls == {e.name for e in FLEET[50:60]}
    assert {entry["event"] for entry in logs} == {"call failed"}
