"""LiteLLM's deployments get a pool's share in equal parts; a change that fails half-way is taken back."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from controlplane.degradation.actuator import RoutePlan
from controlplane.degradation.actuators.litellm import LitellmActuator
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError
from controlplane.fleet.model import LitellmSpec
from tests.support import traffic


@dataclass(slots=True)
class Both:
    proxy: traffic.LitellmProxy
    lever: LitellmActuator


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    proxy = traffic.LitellmProxy("sk-admin")
    async with traffic.served(proxy.app()) as url, aiohttp.ClientSession() as session:
        spec = LitellmSpec(url, "env:KEY", traffic.DEPLOYMENTS)
        yield Both(proxy, LitellmActuator(session, spec, lambda: "sk-admin", "chat"))


async def test_a_pools_share_is_split_over_its_deployments_in_whole_numbers(both: Both) -> None:
    await both.lever.apply(RoutePlan({"primary": 41, "standby": 59}, Level.P0), "k")
    weights = {one: model["litellm_params"]["weight"] for one, model in both.proxy.models.items()}
    assert weights == {"p-1": 123, "p-2": 123, "s-1": 118, "s-2": 118, "s-3": 118, "b-1": 0}
    seen = await both.lever.configured()
    assert seen.weights == {"primary": 41, "standby": 59}
    assert seen.level == "P0"


async def test_those_that_take_traffic_are_set_before_those_that_lose_it(both: Both) -> None:
    await both.lever.apply(RoutePlan({"standby": 100}, Level.P0), "k")
    assert {one[0] for one in both.proxy.patched[:3]} == {"s"}


async def test_a_deployment_keeps_its_id(both: Both) -> None:
    await both.lever.apply(RoutePlan({"standby": 100}, Level.P0), "k")
    assert {model["model_info"]["id"] for model in both.proxy.models.values()} == set(both.proxy.models)


async def test_a_change_that_fails_half_way_is_taken_back(both: Both) -> None:
    both.proxy.refuses = {"p-2"}
    with pytest.raises(ActuatorError) as failed:
        await both.lever.apply(RoutePlan({"standby": 100}, Level.P0), "k")
    assert "config-based" in failed.value.why
    assert (await both.lever.configured()).weights == {"primary": 100}


async def test_deployments_of_the_config_file_are_refused_before_anything_is_touched(both: Both) -> None:
    both.proxy.models["s-1"]["model_info"]["db_model"] = False
    assert "s-1 in its config.yaml" in (await both.lever.preflight(RoutePlan({"standby": 100}))).refusal
    del both.proxy.models["s-1"]
    assert "no deployment s-1" in (await both.lever.preflight(RoutePlan({"standby": 100}))).refusal


async def test_its_answers_name_the_deployment_and_carry_no_level(both: Both) -> None:
    seen = await both.lever.sample(2)
    assert seen.answered_by == ("p-1", "p-1")
    assert seen.answered_level == ()


async def test_a_wrong_key_is_an_error(both: Both) -> None:
    both.proxy.key = "another"
    with pytest.raises(ActuatorError) as failed:
        await both.lever.configured()
    assert "401" in failed.value.why
