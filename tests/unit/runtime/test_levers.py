"""A page names a lever, and that one is built; addresses that are not there are said at the start."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from controlplane.degradation.action import CordonNode, Notify, Prewarm, RewriteModel, Run, Scale
from controlplane.degradation.actuator import Actuator
from controlplane.degradation.actuators.dry_run import DryRunActuator
from controlplane.degradation.actuators.envoy import EnvoyActuator
from controlplane.degradation.actuators.kubernetes import KubernetesActuator
from controlplane.degradation.actuators.litellm import LitellmActuator
from controlplane.degradation.actuators.secret import read_secret
from controlplane.degradation.actuators.webhook import WebhookActuator
from controlplane.degradation.errand import ReceiverSpec
from controlplane.errors import ActuatorError, UnreachableError
from controlplane.fleet.model import (
    DryRunSpec,
    EndpointSource,
    EnvoySpec,
    FleetSpec,
    GatewaySpec,
    KubernetesSpec,
    LitellmSpec,
    PoolSpec,
    WebhookSpec,
)
from controlplane.runtime.levers import gateway_of, hands_of

URL = "http://10.0.0.9:8080"
PRIMARY = PoolSpec(EndpointSource(static=("http://10.0.0.1:8000",)), model="full")


def fleet(gateway: GatewaySpec | None) -> FleetSpec:
    return FleetSpec({"primary": PRIMARY}, gateway)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


@pytest.mark.parametrize(
    ("spec", "kind", "page"),
    [
        (GatewaySpec(envoy=EnvoySpec("xds", "http://10.0.0.9:9901", URL)), EnvoyActuator, "http://10.0.0.9:9901/stats"),
        (GatewaySpec(kubernetes=KubernetesSpec("httproute", "chat", URL)), KubernetesActuator, ""),
        (GatewaySpec(webhook=WebhookSpec("http://10.0.0.8", URL, "env:S")), WebhookActuator, ""),
        (GatewaySpec(litellm=LitellmSpec(URL, "env:K", {"primary": ("id",)})), LitellmActuator, ""),
        (GatewaySpec(dry_run=DryRunSpec(URL)), DryRunActuator, ""),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_the_lever_that_the_page_names_is_built(
    session: aiohttp.ClientSession, tmp_path: Path, spec: GatewaySpec, kind: type[Actuator], page: str
) -> None:
    found = gateway_of(fleet(spec), "chat", tmp_path, session)
    assert found is not None
    assert type(found.actuator) is kind
    assert found.endpoint is not None
    assert (found.endpoint.url, found.endpoint.model) == (URL, "full")
    assert found.page().startswith(page)
    assert bool(found.page()) == bool(page)


async def test_a_page_may_name_no_gateway_and_a_dry_run_no_listener(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    assert gateway_of(fleet(None), "chat", tmp_path, session) is None
    dry = gateway_of(fleet(GatewaySpec(dry_run=DryRunSpec())), "chat", tmp_path, session)
    assert dry is not None
    assert dry.endpoint is None


async def test_an_address_that_is_not_there_is_said_at_the_start(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    for spec in (EnvoySpec("xds", "file:admin", URL), EnvoySpec("xds", URL, "file:listener")):
        with pytest.raises(UnreachableError):
            gateway_of(fleet(GatewaySpec(envoy=spec)), "chat", tmp_path, session)


async def test_there_is_a_hand_for_every_kind_of_errand_and_it_does_nothing_that_the_page_does_not_name(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    hands = hands_of(
        fleet(None), "chat", tmp_path, session, lambda _: (), {}, {}, tmp_path, lambda: datetime.now(UTC)
    ).by_errand
    assert set(hands) == {Scale, RewriteModel, CordonNode, Prewarm, Notify, Run}
    for errand in (
        Prewarm("primary"),
        Notify("oncall"),
        Run("drain"),
        Scale("engine"),
        RewriteModel("r", "p", "a", "a"),
        CordonNode("n", "x"),
    ):
        assert (await hands[type(errand)].preflight(errand)).refusal
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a folder of this test's own


def test_a_secret_is_read_where_it_is_kept_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "one")
    assert read_secret("env:KEY", tmp_path) == "one"
    (tmp_path / "key").write_text("two\n", encoding="utf-8")
    assert read_secret("file:key", tmp_path) == "two"
    (tmp_path / "key").write_text("three\n", encoding="utf-8")
    assert read_secret("file:key", tmp_path) == "three"
    assert read_secret("http://10.0.0.1", tmp_path) == "http://10.0.0.1"


@pytest.mark.parametrize("place", ["env:NO_SUCH_VARIABLE", "file:absent", "env:EMPTY"])
def test_a_secret_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("EMPTY", " ")
    with pytest.raises(ActuatorError, match=place):
        read_secret(place, tmp_path)


async def test_a_receiver_that_takes_no_page_stops_nobody_who_has_something_to_tell(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    deaf = {"oncall": ReceiverSpec(webhook="http://127.0.0.1:9/page")}
    hands = hands_of(
        fleet(None), "chat", tmp_path, session, lambda _: (), deaf, {}, tmp_path, lambda: datetime.now(UTC)
    )
    with capture_logs() as said:
        await hands.page("standby is not ready")
    assert [(line["event"], line["text"]) for line in said] == [("nobody was paged", "standby is not ready")]
