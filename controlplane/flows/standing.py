"""How a service stands now: what `observe` knows, as one frozen value that the API and the console show; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controlplane.degradation.actuator import RoutePlan
from controlplane.degradation.instruction import Instruction
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level, Mode, Row
from controlplane.fleet.model import Endpoint
from controlplane.slo.burn import Budget
from controlplane.slo.verdict import Verdict


@dataclass(frozen=True, slots=True)
class EndpointStanding:
    """One endpoint as its probes see it."""

    endpoint: Endpoint
    up: bool | None
    """None until a probe has looked."""
    since: datetime | None
    """Since when it is up or down."""
    detail: str = ""
    """What the last failed look said; empty while all is well."""
    answer_s: float | None = None
    """Seconds the last real completion took; None when there was none or it failed."""
    first_token_s: float | None = None
    """Seconds to its first token; None where the completion is not streamed."""
    tokens_per_s: float | None = None
    """Tokens a second of it, from the request to the answer's end."""


@dataclass(frozen=True, slots=True)
class PoolStanding:
    """One pool: the verdict on it and what it is made of."""

    name: str
    model: str
    verdict: Verdict
    endpoints: tuple[EndpointStanding, ...]
    weight: int | None
    """Whole percent of the traffic the gateway sends it; None for the gateway itself or without a lever."""


@dataclass(frozen=True, slots=True)
class RowStanding:
    """One row of the matrix."""

    row: Row
    phase: Phase
    since: datetime
    because: tuple[str, ...]
    """The conditions that hold now, in words."""
    given_back: float = 0.0
    """While releasing: the share (0..1) the primary has back."""
    waits_for: str = ""
    """What holds the row back although its trigger holds; an empty string when nothing does."""
    awaits_approval: bool = False
    """It engages once a person approves it."""
    said: Instruction | None = None
    """What a person said about it since its trigger began to hold."""


@dataclass(frozen=True, slots=True)
class MatrixStanding:
    """The matrix at one moment."""

    level: Level
    level_since: datetime
    why: tuple[str, ...]
    mode: Mode
    rows: tuple[RowStanding, ...]
    not_armed: Mapping[str, str]
    plan: RoutePlan | None
    """The split that the lever was last told; None without a lever."""
    pins: tuple[Instruction, ...]
    braked: bool
    brake: Instruction | None


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """The error budget of one objective."""

    objective: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything about one service at one moment."""

    service: str
    at: datetime
    level: Level
    level_since: datetime
    why: tuple[str, ...]
    """Why the level is in force; empty when it is none."""
    mode: Mode
    pools: tuple[PoolStanding, ...]
    """The gateway first (pool `gateway`), then primary, then the others by name."""
    rows: tuple[RowStanding, ...]
    """P0 first."""
    not_armed: Mapping[str, str]
    """Rows of the default matrix that this fleet cannot carry out, with the reason."""
    problems: tuple[str, ...] = ()
    """What the control plane itself cannot do right now, such as read an inventory file."""
    budgets: tuple[BudgetStanding, ...] = ()
    """Of the objectives that have one."""
    pins: tuple[Instruction, ...] = ()
    """What people have pinned; a pin to level `none` keeps every other row from beginning anything."""
    braked: bool = False
    """The brake is on: nothing engages or is given back by itself."""
    brake: Instruction | None = None
    """Who pulled it, and why."""


def stand(
    service: str, at: datetime, matrix: MatrixStanding, pools: tuple[PoolStanding, ...], problems: tuple[str, ...]
) -> Standing:
    """Put together what is seen and what is done about it."""
    return Standing(
        service=service,
        at=at,
        level=matrix.level,
        level_since=matrix.level_since,
        why=matrix.why,
        mode=matrix.mode,
        pools=pools,
        rows=matrix.rows,
        not_armed=matrix.not_armed,
        problems=problems,
        pins=matrix.pins,
        braked=matrix.braked,
        brake=matrix.brake,
    )
