"""Warm-ups by the clock: once for each peak, by whoever is in charge, and again after a failure."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from controlplane.degradation.action import Errand, Prewarm
from controlplane.degradation.actuator import Preflight
from controlplane.degradation.warmup import Peak, WarmUp
from controlplane.errors import ActuatorError
from controlplane.runtime.prewarming import AGAIN_AFTER, PREWARM_EVERY, Prewarmer
from controlplane.telemetry import Metrics

PEAK = datetime(2026, 11, 5, 9, tzinfo=UTC)
FIXED = WarmUp("standby", Peak(9), timedelta(hours=2), 4)


class Hand:
    """Sends nothing and notes what it should have sent."""

    def __init__(self) -> None:
        self.applied: list[tuple[Errand, str]] = []
        self.fails = False

    async def preflight(self, errand: Errand) -> Preflight:
        raise AssertionError(errand)

    async def apply(self, errand: Errand, key: str) -> str:
        self.applied.append((errand, key))
        if self.fails:
            raise ActuatorError("standby is not warm", "standby-0: it answered 503", "see to it")
        return "4 completions each from standby-0"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:
        raise AssertionError((errand, key, before))

    async def observe(self, errand: Errand, key: str, done: str) -> str:
        raise AssertionError(errand)


class Desk:
    """A prewarmer in a time of its own."""

    def __init__(self, *warm_ups: WarmUp, watches: bool = False) -> None:
        self.hand, self.metrics = Hand(), Metrics()
        self.now = PEAK - timedelta(hours=3)
        self.leads = True
        self.learnt: datetime | None = None
        self.prewarmer = Prewarmer(
            "chat", warm_ups, self.hand, lambda _: self.learnt, lambda: self.leads, self.metrics, lambda: self.now,
            watches=watches,
        )  # fmt: skip

    async def until(self, end: datetime) -> None:
        while self.now < end:
            await self.prewarmer.tick()
            self.now += PREWARM_EVERY

    def counted(self, outcome: str) -> float | None:
        labels = {"service": "chat", "pool": "standby", "outcome": outcome}
        return self.metrics.registry.get_sample_value("controlplane_prewarms_total", labels)


async def test_a_pool_is_warmed_up_once_before_each_peak() -> None:
    desk = Desk(FIXED, FIXED)
    await desk.until(PEAK - timedelta(hours=2))
    assert desk.hand.applied == []
    await desk.until(PEAK + timedelta(days=1))
    keys = [f"chat/prewarm/standby/{at.isoformat()}" for at in (PEAK, PEAK + timedelta(days=1))]
    assert desk.hand.applied == [(Prewarm("standby", 4), key) for key in keys]
    assert desk.counted("warm") == 2


async def test_a_time_that_was_missed_is_made_up_for_until_the_peak_begins() -> None:
    desk = Desk(FIXED)
    desk.now = PEAK - timedelta(minutes=5)
    await desk.until(PEAK)
    assert len(desk.hand.applied) == 1
    late = Desk(FIXED)
    late.now = PEAK
    await late.until(PEAK + timedelta(hours=1))
    assert late.hand.applied == []


async def test_one_that_is_not_in_charge_sends_nothing_until_it_is() -> None:
    desk = Desk(FIXED)
    desk.leads = False
    await desk.until(PEAK - timedelta(hours=1))
    assert desk.hand.applied == []
    desk.leads = True
    await desk.until(PEAK)
    assert len(desk.hand.applied) == 1


async def test_a_warm_up_that_failed_is_tried_again_and_not_every_minute() -> None:
    desk = Desk(FIXED)
    desk.hand.fails = True
    await desk.until(PEAK - timedelta(hours=2) + 3 * AGAIN_AFTER)
    assert len(desk.hand.applied) == 3
    assert desk.counted("failed") == 3
    desk.hand.fails = False
    await desk.until(PEAK)
    assert len(desk.hand.applied) == 4
    assert desk.counted("warm") == 1


async def test_a_forecast_peak_is_warmed_up_for_as_soon_as_it_is_learnt() -> None:
    desk = Desk(WarmUp("standby"), FIXED)
    desk.learnt = PEAK + timedelta(minutes=30)
    await desk.until(PEAK)
    assert {key for _, key in desk.hand.applied} == {
        "chat/prewarm/standby/2026-11-05T09:00:00+00:00", "chat/prewarm/standby/2026-11-05T09:30:00+00:00",
    }  # fmt: skip


async def test_in_mode_observe_nothing_is_sent() -> None:
    desk = Desk(FIXED, watches=True)
    await desk.until(PEAK)
    assert desk.hand.applied == []
    assert desk.counted("warm") is None
