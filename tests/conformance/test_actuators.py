"""One suite over every lever on a service's traffic: each does what the port says, on what it really drives.

Envoy is a real one. Routes of Kubernetes are applied to an API server in this process that holds them to their
projects' own schemas and, where `CONTROLPLANE_TEST_CRDSERVER` names the kubeconfig of a real one, to that too.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from controlplane.degradation.action import Shed
from controlplane.degradation.actuator import Actuator, RoutePlan, configured_as, shows
from controlplane.degradation.actuators.cluster import Cluster
from controlplane.degradation.actuators.dry_run import DryRunActuator
from controlplane.degradation.actuators.envoy import EnvoyActuator
from controlplane.degradation.actuators.kubernetes import KubernetesActuator
from controlplane.degradation.actuators.litellm import LitellmActuator
from controlplane.degradation.actuators.sample import Sampler
from controlplane.degradation.actuators.webhook import WebhookActuator
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError
from controlplane.fleet.model import KubernetesSpec, LitellmSpec
from tests.support import kube, traffic
from tests.support.envoys import Envoy, envoy
from tests.support.processes import until
from tests.support.real_kube import REAL, RealApi

pytestmark = pytest.mark.journey

NORMAL = RoutePlan({"primary": 100})
SWITCHED = RoutePlan({"standby": 100}, Level.P0)
SHARED = RoutePlan({"primary": 40, "standby": 10, "base": 50}, Level.P2)
SHEDDING = RoutePlan({"primary": 100}, Level.P1, Shed(5.0, burst=2.0, floor=1))
CORDONED = RoutePlan({"primary": 100}, Level.P2, cordoned=("primary-1",))
NOWHERE = "http://127.0.0.1:1"
PATIENT = aiohttp.ClientTimeout(total=15.0)

ROUTES = ("virtualservice", "httproute")
KINDS = ("envoy", *ROUTES, *(f"real-{kind}" for kind in ROUTES if REAL), "webhook", "litellm", "dry_run")
MOVING = tuple(kind for kind in KINDS if kind != "dry_run")
"""Those that move something, and so can fail to."""
SHEDS = ("envoy", "webhook", "dry_run")
"""Those that have words for what is shed and who is cordoned."""


@dataclass(slots=True)
class Lever:
    """One lever with what it drives."""

    actuator: Actuator
    touched: Callable[[], Any]
    """Everything that it could change, as it is."""
    unreachable: Actuator
    """The same lever, and nobody at its address."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Envoy longer to answer than the product does: how soon it must on a busy machine is not what is asked."""
    monkeypatch.setattr("controlplane.degradation.actuators.envoy._ADMIN_TIMEOUT", PATIENT)
    monkeypatch.setattr("controlplane.degradation.actuators.sample._SAMPLE_TIMEOUT", PATIENT)


async def settled(lever: Actuator, plan: RoutePlan) -> bool:
    """Wait until a gateway that takes a moment shows a plan; tell whether it does."""
    deadline = monotonic() + 15.0
    while not configured_as(await lever.configured(), plan):
        if monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


@pytest.fixture(scope="module")
def real_envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with envoy(tmp_path_factory.mktemp("envoy") / "gateway") as running:
        yield running


@pytest.fixture
async def lever(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lever]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        kind = request.param
        if kind == "envoy":
            yield await envoy_lever(request.getfixturevalue("real_envoy"), session)
        elif kind.startswith("real-"):
            api = stack.enter_context(RealApi(kind.removeprefix("real-"), f"chat-{uuid4().hex[:8]}"))
            yield kubernetes_lever(kind.removeprefix("real-"), api.name, Path(REAL), api.spec, tmp_path, session)
        elif kind in ROUTES:
            fake = stack.enter_context(kube.api_server())
            fake.put(kube.PLURALS[kind], kube.ROUTES[kind](), "controlplane")
            held = kube.kubeconfig(tmp_path, fake.url)
            yield kubernetes_lever(kind, "chat", held, lambda: fake.spec(kube.PLURALS[kind], "chat"), tmp_path, session)
        elif kind == "webhook":
            plans = traffic.PlanService("s3cret")
            url = await stack.enter_async_context(traffic.served(plans.app()))
            sampler = Sampler(session, url, "")
            yield Lever(
                WebhookActuator(session, "chat", f"{url}/plan", lambda: "s3cret", sampler),
                lambda: copy.deepcopy(plans.state),
                WebhookActuator(session, "chat", NOWHERE, lambda: "s3cret", sampler),
            )
        elif kind == "litellm":
            proxy = traffic.LitellmProxy("sk-admin")
            url = await stack.enter_async_context(traffic.served(proxy.app()))
            specs = [LitellmSpec(address, "env:KEY", traffic.DEPLOYMENTS) for address in (url, NOWHERE)]
            there, nowhere = (LitellmActuator(session, spec, lambda: "sk-admin", "chat") for spec in specs)
            yield Lever(there, lambda: copy.deepcopy(proxy.models), nowhere)
        else:
            rehearsed = DryRunActuator(kube.POOLS, None)
            yield Lever(rehearsed, lambda: None, rehearsed)


async def envoy_lever(running: Envoy, session: aiohttp.ClientSession) -> Lever:
    running.write()
    there = EnvoyActuator(session, running.xds, lambda: running.admin, Sampler(session, running.listener, ""))
    assert await settled(there, NORMAL)
    nowhere = EnvoyActuator(session, running.folder / "absent", lambda: NOWHERE, Sampler(session, NOWHERE, ""))
    return Lever(there, running.files, nowhere)


def kubernetes_lever(
    kind: str, name: str, config: Path, touched: Callable[[], Any], folder: Path, session: aiohttp.ClientSession
) -> Lever:
    (folder / "nowhere").mkdir()
    nowhere = kube.kubeconfig(folder / "nowhere", NOWHERE)
    there, lost = (
        KubernetesActuator(
            Cluster(str(path)), KubernetesSpec(kind, name, NOWHERE), kube.POOLS, Sampler(session, NOWHERE, "")
        )
        for path in (config, nowhere)
    )
    return Lever(there, touched, lost)


every = pytest.mark.parametrize("lever", KINDS, indirect=True)
moving = pytest.mark.parametrize("lever", MOVING, indirect=True)


@every
@pytest.mark.parametrize("plan", [SWITCHED, SHARED], ids=["all", "shares"])
async def test_what_is_configured_is_what_was_applied(lever: Lever, plan: RoutePlan) -> None:
    await lever.actuator.apply(plan, "k1")
    assert await settled(lever.actuator, plan)
    assert not configured_as(await lever.actuator.configured(), NORMAL)


@every
async def test_applying_twice_is_applying_once(lever: Lever) -> None:
    await lever.actuator.apply(SWITCHED, "k1")
    once = lever.touched()
    await lever.actuator.apply(SWITCHED, "k1")
    assert lever.touched() == once
    assert await settled(lever.actuator, SWITCHED)


@every
async def test_applying_the_plan_from_before_is_undoing(lever: Lever) -> None:
    await lever.actuator.apply(NORMAL, "k0")
    before = lever.touched()
    await lever.actuator.apply(SHARED, "k1")
    await lever.actuator.apply(NORMAL, "k1")
    assert lever.touched() == before
    assert await settled(lever.actuator, NORMAL)


@every
async def test_a_preflight_touches_nothing_and_says_what_would_change(lever: Lever) -> None:
    before = lever.touched()
    said = await lever.actuator.preflight(SWITCHED)
    assert said.refusal == ""
    assert "standby" in said.preview
    assert lever.touched() == before


@every
async def test_a_pool_that_is_not_there_is_refused_by_name_before_and_when_it_is_applied(lever: Lever) -> None:
    before = lever.touched()
    nowhere = RoutePlan({"cache": 100}, Level.P1)
    assert "cache" in (await lever.actuator.preflight(nowhere)).refusal
    with pytest.raises(ActuatorError) as refused:
        await lever.actuator.apply(nowhere, "k1")
    assert "cache" in f"{refused.value.what} {refused.value.why}"
    assert lever.touched() == before


@moving
async def test_a_gateway_that_cannot_be_reached_is_an_error_that_says_what_why_and_fix(lever: Lever) -> None:
    asks: list[Callable[[], Awaitable[Any]]] = [
        lambda: lever.unreachable.apply(SWITCHED, "k1"),
        lever.unreachable.configured,
        lambda: lever.unreachable.sample(1),
    ]
    for ask in asks:
        with pytest.raises(ActuatorError) as failed:
            await ask()
        assert all((failed.value.what, failed.value.why, failed.value.fix))
    assert (await lever.unreachable.preflight(SWITCHED)).refusal


@pytest.mark.parametrize("lever", [kind for kind in KINDS if kind in SHEDS], indirect=True)
@pytest.mark.parametrize("plan", [SHEDDING, CORDONED], ids=["shed", "cordon"])
async def test_what_is_shed_and_who_is_cordoned_is_configured_and_taken_back(lever: Lever, plan: RoutePlan) -> None:
    await lever.actuator.apply(NORMAL, "k0")
    before = lever.touched()
    assert (await lever.actuator.preflight(plan)).refusal == ""
    await lever.actuator.apply(plan, "k1")
    assert await settled(lever.actuator, plan)
    await lever.actuator.apply(NORMAL, "k1")
    assert await settled(lever.actuator, NORMAL)
    assert lever.touched() == before


@pytest.mark.parametrize("lever", [kind for kind in KINDS if kind not in SHEDS], indirect=True)
@pytest.mark.parametrize("plan", [SHEDDING, CORDONED], ids=["shed", "cordon"])
async def test_what_a_gateway_has_no_words_for_is_refused_and_not_left_out(lever: Lever, plan: RoutePlan) -> None:
    before = lever.touched()
    assert (await lever.actuator.preflight(plan)).refusal
    with pytest.raises(ActuatorError):
        await lever.actuator.apply(plan, "k1")
    assert lever.touched() == before


@pytest.mark.parametrize("lever", ["envoy", "webhook", "litellm"], indirect=True)
async def test_real_requests_show_who_answers_and_at_which_level(lever: Lever) -> None:
    await lever.actuator.apply(SWITCHED, "k1")
    assert await settled(lever.actuator, SWITCHED)
    seen = await lever.actuator.sample(3)
    assert shows(seen, SWITCHED)
    assert not shows(seen, NORMAL)
    assert {by[0] for by in seen.answered_by} == {"s"}


# -- Envoy, under requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lever", ["envoy"], indirect=True)
async def test_envoy_refuses_what_is_too_much_and_what_is_less_important_and_says_so(
    lever: Lever, real_envoy: Envoy
) -> None:
    await lever.actuator.apply(RoutePlan({"primary": 100}, Level.P1, Shed(0.02, burst=3.0, floor=2)), "k1")
    await lever.actuator.preflight(NORMAL)
    until(lambda: real_envoy.answered(1, x_priority="3")[429, "gateway"] == 1, 5, "the floor stands")
    counted = real_envoy.answered(10, x_priority="1")
    assert 1 <= sum(times for (status, _), times in counted.items() if status == 200) <= 3
    assert counted[429, "gateway"] >= 7
    seen = await lever.actuator.sample(2)
    assert seen.answered_by == ("gateway",) * 2
    assert seen.answered_level == ("P1",) * 2
    await lever.actuator.apply(NORMAL, "k1")
    assert await settled(lever.actuator, NORMAL)
    until(lambda: real_envoy.answered(1, x_priority="9")[429, "gateway"] == 0, 5, "the floor is gone")
    assert sum(real_envoy.answered(10, x_priority="9").values()) == 10


@pytest.mark.parametrize("lever", ["envoy"], indirect=True)
async def test_envoy_sends_nothing_more_to_an_endpoint_that_is_cordoned(lever: Lever, real_envoy: Envoy) -> None:
    await lever.actuator.apply(CORDONED, "k1")
    assert await settled(lever.actuator, CORDONED)
    until(lambda: (200, "primary-1") not in real_envoy.answered(10), 5, "it is left out")
    assert set(real_envoy.answered(60)) == {(200, "primary-0"), (200, "primary-2")}
    await lever.actuator.apply(NORMAL, "k1")
    assert await settled(lever.actuator, NORMAL)
    until(lambda: (200, "primary-1") in real_envoy.answered(20), 5, "it is back")
    everyone = RoutePlan({"primary": 100}, cordoned=tuple(f"primary-{n}" for n in range(3)))
    assert "primary-0" in (await lever.actuator.preflight(everyone)).refusal
    with pytest.raises(ActuatorError, match="cannot write"):
        await lever.actuator.apply(everyone, "k2")


@pytest.mark.parametrize("lever", ["envoy"], indirect=True)
async def test_an_envoy_that_refuses_a_configuration_keeps_the_old_one_and_is_seen_to(
    lever: Lever, real_envoy: Envoy
) -> None:
    document = json.loads((real_envoy.xds / "rds.json").read_text(encoding="utf-8"))
    regex = {"safe_regex": {"regex": "("}}
    document["resources"][0]["virtual_hosts"][0]["routes"].insert(
        0, {"match": regex, "direct_response": {"status": 200}}
    )
    assert (await lever.actuator.preflight(SWITCHED)).refusal == ""
    # Somebody else breaks the file between the preflight and the apply.
    (real_envoy.xds / ".rds.part").write_text(json.dumps(document), encoding="utf-8")
    (real_envoy.xds / ".rds.part").replace(real_envoy.xds / "rds.json")
    await lever.actuator.apply(SWITCHED, "k1")
    seen = await lever.actuator.configured()
    deadline = monotonic() + 15.0
    while not seen.rejected and monotonic() < deadline:
        await asyncio.sleep(0.01)
        seen = await lever.actuator.configured()
    assert "refused" in seen.rejected
    assert seen.weights == {"primary": 100}
    assert not shows(seen, SWITCHED)
    real_envoy.write()
    with suppress(ActuatorError):
        assert await settled(lever.actuator, NORMAL)


# -- Kubernetes, with others at the same object ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.removeprefix("real-") in ROUTES])
async def test_rules_that_belong_to_somebody_else_are_refused_by_their_name_and_taken_over_when_the_page_says_so(
    kind: str, tmp_path: Path
) -> None:
    owner = "argocd-controller"
    if kind.startswith("real-"):
        with RealApi(kind.removeprefix("real-"), f"chat-{uuid4().hex[:8]}", owner) as real:
            await conflict(kind.removeprefix("real-"), real.name, Path(REAL), owner)
        return
    with kube.api_server() as api:
        api.put(kube.PLURALS[kind], kube.ROUTES[kind](), owner)
        await conflict(kind, "chat", kube.kubeconfig(tmp_path, api.url), owner)


async def conflict(kind: str, name: str, config: Path, owner: str) -> None:
    async with aiohttp.ClientSession() as session:
        polite, firm = (
            KubernetesActuator(
                Cluster(str(config)), KubernetesSpec(kind, name, NOWHERE, take_over=force), kube.POOLS,
                Sampler(session, NOWHERE, ""),
            )
            for force in (False, True)
        )  # fmt: skip
        assert owner in (await polite.preflight(SWITCHED)).refusal
        with pytest.raises(ActuatorError, match=owner) as refused:
            await polite.apply(SWITCHED, "k1")
        assert "take_over" in refused.value.fix
        assert (await polite.configured()).weights == {"primary": 100}
        assert (await firm.preflight(SWITCHED)).refusal == ""
        await firm.apply(SWITCHED, "k1")
        assert configured_as(await polite.configured(), SWITCHED)
        await polite.apply(NORMAL, "k1")
        assert configured_as(await polite.configured(), NORMAL)
