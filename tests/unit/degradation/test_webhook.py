"""Plans over a webhook: signed, tried again while that may help, and never taken for each other."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from controlplane.degradation.action import Shed
from controlplane.degradation.actuator import RoutePlan, configured_as
from controlplane.degradation.actuators import post
from controlplane.degradation.actuators.sample import Sampler
from controlplane.degradation.actuators.webhook import WebhookActuator, signature
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError
from tests.support import traffic

FULL = RoutePlan({"standby": 90, "primary": 10}, Level.P0, Shed(20.0, 30.0, 2), ("primary-1",))


@dataclass(slots=True)
class Both:
    service: traffic.PlanService
    lever: WebhookActuator


@pytest.fixture
async def both(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Both]:
    monkeypatch.setattr(post, "FIRST_PAUSE_S", 0.001)
    service = traffic.PlanService("s3cret")
    async with traffic.served(service.app()) as url, aiohttp.ClientSession() as session:
        yield Both(
            service, WebhookActuator(session, "chat", f"{url}/plan", lambda: "s3cret", Sampler(session, url, ""))
        )


def test_the_signature_is_what_the_documentation_says() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac s3cret
    assert signature("s3cret", "1700000000", b"{}") == (
        "v1=97926816e98fbb41ccb1673225ff29a2f35369099990e1b1561651e7bd097ebf"
    )


async def test_a_whole_plan_goes_over_and_is_read_back(both: Both) -> None:
    await both.lever.apply(FULL, "chat/P0/1")
    (taken,) = both.service.taken
    assert taken == {
        "service": "chat",
        "key": "chat/P0/1",
        "weights": {"standby": 90, "primary": 10},
        "level": "P0",
        "shed": {"rate": 20.0, "burst": 30.0, "floor": 2},
        "cordoned": ["primary-1"],
    }
    assert configured_as(await both.lever.configured(), FULL)


async def test_a_busy_service_is_asked_again_under_the_same_key(both: Both) -> None:
    both.service.failures = [503, 429, 500]
    await both.lever.apply(FULL, "chat/P0/1")
    assert len(both.service.taken) == 1
    assert len(both.service.keys) == 4
    assert len(set(both.service.keys)) == 1


async def test_two_steps_under_one_receipt_are_never_taken_for_repetitions_of_each_other(both: Both) -> None:
    for plan in (FULL, RoutePlan({"primary": 100}), FULL):
        await both.lever.apply(plan, "chat/P0/1")
    assert len(set(both.service.keys)) == 3
    assert all(key.startswith("chat/P0/1/") for key in both.service.keys)


async def test_a_refusal_is_not_asked_again(both: Both) -> None:
    both.service.failures = [409]
    with pytest.raises(ActuatorError, match="refused") as failed:
        await both.lever.apply(FULL, "k")
    assert "409" in failed.value.why
    assert both.service.taken == []


async def test_a_service_that_stays_down_ends_the_tries(both: Both) -> None:
    both.service.failures = [503] * 50
    with pytest.raises(ActuatorError, match="took nothing") as failed:
        await both.lever.apply(FULL, "k")
    assert "503" in failed.value.why
    assert len(both.service.keys) == post.MOST_TRIES


async def test_a_wrong_secret_is_refused_by_the_service(both: Both) -> None:
    both.service.secret = "another"
    with pytest.raises(ActuatorError) as failed:
        await both.lever.apply(FULL, "k")
    assert "bad signature" in failed.value.why


@pytest.mark.parametrize("state", [{}, {"weights": 5, "level": "P0"}, {"weights": {"a": "b"}, "level": "P0"}])
async def test_a_state_of_another_shape_is_an_error_and_a_refusal(both: Both, state: dict[str, object]) -> None:
    both.service.state = state
    with pytest.raises(ActuatorError, match="no state"):
        await both.lever.configured()
    assert "no state" in (await both.lever.preflight(FULL)).refusal
