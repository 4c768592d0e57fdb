"""The levers and hands of one policy page: which driver pulls what. Called by wiring."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import aiohttp
import structlog

from controlplane.degradation.action import CordonNode, Notify, Prewarm, RewriteModel, Run, Scale
from controlplane.degradation.actuator import Actuator, Hand
from controlplane.degradation.actuators.cluster import Cluster
from controlplane.degradation.actuators.command import CommandHand
from controlplane.degradation.actuators.cordon import CordonHand
from controlplane.degradation.actuators.dry_run import DryRunActuator
from controlplane.degradation.actuators.envoy import EnvoyActuator
from controlplane.degradation.actuators.kubernetes import KubernetesActuator, ScaleHand
from controlplane.degradation.actuators.litellm import LitellmActuator
from controlplane.degradation.actuators.notify import NotifyHand
from controlplane.degradation.actuators.prewarm import PrewarmHand, completions_over
from controlplane.degradation.actuators.rewrite import RewriteHand
from controlplane.degradation.actuators.sample import Sampler
from controlplane.degradation.actuators.secret import read_secret
from controlplane.degradation.actuators.webhook import WebhookActuator
from controlplane.degradation.errand import CommandSpec, ReceiverSpec
from controlplane.errors import ActuatorError
from controlplane.fleet.files import resolve_address
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY, Endpoint, FleetSpec
from controlplane.probes.gateway_counts import COUNTS_PAGE
from controlplane.probes.probe import InferenceSpec

log = structlog.get_logger("levers")

ENVOY_PAGE = "/stats/prometheus?filter=http.*downstream_rq"
"""What users got; the whole page is twenty times as large."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What splits the traffic: where it answers, how its lever is pulled, where its own metrics are."""

    endpoint: Endpoint | None
    """Where users' requests enter; None for a dry run that does not say."""
    actuator: Actuator
    page: Callable[[], str]
    """Gives the address of its metrics page as it is now; an empty text when it has none."""
    counts: Callable[[], str] = str
    """Gives the address of what it counted of each pool; an empty text when it does not tell."""


def gateway_of(
    fleet: FleetSpec, service: str, base: Path, session: aiohttp.ClientSession, asked: InferenceSpec | None = None
) -> Gateway | None:
    """Build the lever of a fleet; None when its page names no gateway.

    Args:
        fleet: the pools and the gateway.
        service: whose traffic it is.
        base: where relative paths on the page start.
        session: the HTTP connections to use.
        asked: the completion that proves the lever; the probes' own, so that a cache knows its answer.

    Raises:
        UnreachableError: when an address is kept in a file that is not there: said at the start, not in the first
            emergency.
    """
    spec = fleet.gateway
    if spec is None:
        return None
    model = fleet.pools[PRIMARY].model
    listener = resolve_address(spec.listener, base) if spec.listener else ""
    endpoint = Endpoint("gateway", GATEWAY_POOL, listener, model=model) if listener else None
    sampler = Sampler(session, listener, model, asked)
    pools = tuple(fleet.pools)
    if spec.envoy:
        admin = partial(resolve_address, spec.envoy.admin, base)
        admin()
        envoy = EnvoyActuator(session, base / spec.envoy.xds_dir, admin, sampler)
        return Gateway(endpoint, envoy, lambda: f"{admin()}{ENVOY_PAGE}", lambda: f"{admin()}{COUNTS_PAGE}")
    actuator: Actuator
    if spec.kubernetes:
        kubeconfig = str(base / spec.kubernetes.kubeconfig) if spec.kubernetes.kubeconfig else ""
        actuator = KubernetesActuator(Cluster(kubeconfig, spec.kubernetes.context), spec.kubernetes, pools, sampler)
    elif spec.webhook:
        secret = partial(read_secret, spec.webhook.secret, base)
        actuator = WebhookActuator(session, service, spec.webhook.url, secret, sampler)
    elif spec.litellm:
        actuator = LitellmActuator(session, spec.litellm, partial(read_secret, spec.litellm.key, base), model, asked)
    else:
        actuator = DryRunActuator(pools, sampler if listener else None)
    return Gateway(endpoint, actuator, str)


@dataclass(frozen=True, slots=True)
class Hands:
    """What carries out errands, and what reaches people."""

    by_errand: Mapping[type, Hand]
    page: Callable[[str], Awaitable[None]]
    """Tells every receiver that a person is needed."""


def hands_of(
    fleet: FleetSpec,
    service: str,
    base: Path,
    session: aiohttp.ClientSession,
    endpoints: Callable[[str], tuple[Endpoint, ...]],
    receivers: Mapping[str, ReceiverSpec],
    commands: Mapping[str, CommandSpec],
    records: Path,
    now: Callable[[], datetime],
) -> Hands:
    """Build the hand for every kind of errand.

    Args:
        fleet: its gateway's cluster, else that of its substrate, is the one that is scaled; else `kubectl`'s.
        service: what people are told about.
        base: where relative paths on the page start.
        session: the HTTP connections to use.
        endpoints: the endpoints of a pool, by its name.
        receivers: who can be told, by name.
        commands: what may be run, by name.
        records: the directory that keeps which command ran.
        now: the time, in UTC.
    """
    ground = fleet.substrate.kubernetes if fleet.substrate else None
    kubernetes = (fleet.gateway.kubernetes if fleet.gateway else None) or ground
    kubeconfig = str(base / kubernetes.kubeconfig) if kubernetes and kubernetes.kubeconfig else ""
    cluster = Cluster(kubeconfig, kubernetes.context if kubernetes else "")
    notify = NotifyHand(session, service, receivers, lambda place: read_secret(place, base), now)
    by_errand: dict[type, Hand] = {
        Scale: ScaleHand(cluster),
        RewriteModel: RewriteHand(cluster),
        CordonNode: CordonHand(cluster),
        Prewarm: PrewarmHand(endpoints, completions_over(session)),
        Notify: notify,
        Run: CommandHand(commands, records),
    }

    async def page(text: str) -> None:
        try:
            await notify.page(text)
        except ActuatorError as error:  # Whoever has something to tell has more to do, too.
            log.warning("nobody was paged", text=text, what=error.what, why=error.why, fix=error.fix)

    return Hands(by_errand, page)
