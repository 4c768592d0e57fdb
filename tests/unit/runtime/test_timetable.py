"""What happens by the clock ends quietly when the process stops."""

import asyncio
import logging
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from controlplane.runtime.scheduler import Timetable


async def test_a_job_under_way_is_called_off_without_an_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="apscheduler")
    begun, ended = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    timetable = Timetable()
    timetable.every(timedelta(hours=1), long, "long")
    timetable.start()
    await asyncio.wait_for(begun.wait(), 10)
    timetable.stop()
    await asyncio.wait_for(ended.wait(), 10)
    await asyncio.sleep(0)
    assert [r for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info] == []


async def test_a_job_that_fails_is_logged_and_comes_again() -> None:
    calls = asyncio.Queue[int]()

    async def broken() -> None:
        calls.put_nowait(1)
        raise ValueError("no luck")

    timetable = Timetable()
    with capture_logs() as logs:
        timetable.every(timedelta(seconds=1), broken, "broken")
        timetable.start()
        for _ in range(2):
            await asyncio.wait_for(calls.get(), 10)
        await asyncio.sleep(0)
        timetable.stop()
    assert {(e["event"], e["job"]) for e in logs} == {("tick failed", "broken")}
