"""What a row of the matrix may ask for; pure data, as it stands under `do:` on the policy page.

Two kinds. *Splits* shape what the gateway does with the service's traffic: they combine into one `RoutePlan`
(`actuator.route`), are undone by steps, and are proven at the gateway. *Errands* are everything else: each is carried
out, proven and undone by the hand that can do it (`actuator.Hand`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.fleet.model import CACHE, PoolSpec


@dataclass(frozen=True, slots=True)
class SwitchPool:
    """Send everything that goes to the primary pool to another one that serves the same model (P0)."""

    to: str = "standby"


@dataclass(frozen=True, slots=True)
class ServeFromCache:
    """Send everything that goes to the primary pool to the response cache, which asks the fleet for what it misses."""

    pool: str = CACHE


@dataclass(frozen=True, slots=True)
class UsePool:
    """Send a share of the primary pool's traffic to another pool."""

    pool: str
    share: float = 1.0
    """0..1."""


@dataclass(frozen=True, slots=True)
class Shed:
    """Refuse what is too much, at the gateway: 429 with `retry-after`, the least important first."""

    rate: float
    """Requests a second that are let in (a token bucket)."""
    burst: float = 0.0
    """Requests that may come at once; 0 means one second's worth."""
    floor: int | None = None
    """Requests whose `x-priority` is a larger number (less important) than this are refused outright."""


@dataclass(frozen=True, slots=True)
class Cordon:
    """Send no new requests to one endpoint."""

    endpoint: str
    """Its name, such as `primary-1`."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Change how many replicas a workload has, or the bounds of its autoscaler."""

    target: str
    """`deployment/NAME`, `statefulset/NAME` or `hpa/NAME`."""
    namespace: str = "default"
    replicas: int | None = None
    """For a deployment or a stateful set."""
    min: int | None = None
    """For an autoscaler."""
    max: int | None = None
    """For an autoscaler."""
    take_over: bool = False
    """Take an autoscaler's bounds from whoever owns them; otherwise a conflict of owners is refused."""


@dataclass(frozen=True, slots=True)
class RewriteModel:
    """Have an inference gateway serve another model than requests ask for (`InferenceModelRewrite`)."""

    name: str
    """Of the object; it is made, and taken away again, where there is none."""
    inference_pool: str
    """The `InferencePool` that it belongs to."""
    model: str
    """What requests ask for."""
    to: str
    """What they get."""
    share: float = 1.0
    """0..1."""
    namespace: str = "default"
    take_over: bool = False
    """Take the rules of an object that is there from whoever owns them; otherwise a conflict of owners is refused."""


@dataclass(frozen=True, slots=True)
class CordonNode:
    """Let nothing new be scheduled on a node of the cluster."""

    node: str
    taint: str = ""
    """Set this taint, `KEY=VALUE:EFFECT` or `KEY:EFFECT`; empty marks the node unschedulable, as `kubectl cordon`."""


@dataclass(frozen=True, slots=True)
class Prewarm:
    """Send warm-up completions to every endpoint of a pool, so that users do not pay for its first ones."""

    pool: str
    completions: int = 4
    """Sent to each endpoint."""
    prompt: str = "ping"
    max_tokens: int = 16


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell people: once when the row engages, once when it is over."""

    receiver: str
    """A name under `degradation.receivers` on the page."""


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command that the page allows by name under `degradation.commands`."""

    command: str


Move = SwitchPool | ServeFromCache | UsePool
"""Takes traffic from the primary pool to another one. A row has at most one."""
Split = Move | Shed | Cordon
"""Shapes what the gateway does."""
Errand = Scale | RewriteModel | CordonNode | Prewarm | Notify | Run
"""Is carried out beside the gateway."""
Action = Split | Errand

MOVES = (SwitchPool, ServeFromCache, UsePool)
SPLITS = (*MOVES, Shed, Cordon)


def pool_of(move: Move) -> str:
    """Return the pool that traffic goes to."""
    return move.to if isinstance(move, SwitchPool) else move.pool


def share_of(move: Move) -> float:
    """Return the share (0..1) of the primary's traffic that goes there."""
    return move.share if isinstance(move, UsePool) else 1.0


def missing_pool(actions: tuple[Action, ...], pools: Mapping[str, PoolSpec]) -> str:
    """Return the first pool that actions need and the fleet does not have, or an empty string."""
    needed = [pool_of(a) for a in actions if isinstance(a, MOVES)]
    needed += [a.pool for a in actions if isinstance(a, Prewarm)]
    return next((pool for pool in needed if pool not in pools), "")


def spell_actions(actions: tuple[Action, ...]) -> str:
    """Say actions as the policy page does, such as `switch_pool to standby; notify oncall`."""
    return "; ".join(_spell(action) for action in actions)


def _spell(action: Action) -> str:
    if not isinstance(action, SPLITS):
        return _spell_errand(action)
    match action:
        case SwitchPool(to):
            return f"switch_pool to {to}"
        case ServeFromCache(pool):
            return f"serve_from_cache {pool}"
        case UsePool(pool, share):
            return f"use_pool {pool} for {share:.0%}"
        case Shed():
            floor = "" if action.floor is None else f", priorities over {action.floor} refused"
            return f"shed to {action.rate:g}/s{floor}"
        case Cordon(endpoint):
            return f"cordon {endpoint}"


def _spell_errand(errand: Errand) -> str:
    match errand:
        case Scale():
            bounds = (("replicas", errand.replicas), ("min", errand.min), ("max", errand.max))
            wanted = " ".join(f"{name} {count}" for name, count in bounds if count is not None)
            return f"scale {errand.target} to {wanted}"
        case RewriteModel():
            return f"rewrite model {errand.model} to {errand.to} for {errand.share:.0%}"
        case CordonNode(node, taint):
            return f"cordon node {node}{f' with {taint}' if taint else ''}"
        case Prewarm():
            return f"prewarm {errand.pool} with {errand.completions} completions each"
        case Notify(receiver):
            return f"notify {receiver}"
        case Run(command):
            return f"run {command}"
