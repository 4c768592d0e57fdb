"""In-memory stand-ins for what the flows touch; each writes what happened into one shared record, in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from controlplane.chaos.drill import Drill, Outcome
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.degradation.action import Errand, SwitchPool, spell_actions
from controlplane.degradation.actuator import (
    BLOCKING_STATES,
    OPEN_STATES,
    Observed,
    Preflight,
    Receipt,
    ReceiptState,
    RoutePlan,
    Step,
)
from controlplane.degradation.instruction import Instruction
from controlplane.degradation.matrix import Condition, Level, ReleasePlan, Row
from controlplane.errors import ActuatorError, FaultError, FencedError, StoreError
from controlplane.fleet.model import Endpoint
from controlplane.incidents.correlate import Case, Notice, Ruling, correlate
from controlplane.incidents.incident import Entry, Incident, IncidentState

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
NORMAL = RoutePlan({"primary": 100})
SWITCHED = RoutePlan({"primary": 0, "standby": 100}, Level.P0)


@dataclass(slots=True)
class Clock:
    """Wall-clock time that moves a millisecond with every look at it."""

    at: datetime = T0

    def __call__(self) -> datetime:
        self.at += timedelta(milliseconds=1)
        return self.at


@dataclass(slots=True)
class FakeActuator:
    """A gateway that shows at once what it was told, unless it is told to misbehave."""

    did: list[str] = field(default_factory=list)
    plan: RoutePlan = NORMAL
    obeys: bool = True
    """False: takes a plan and never shows it."""
    readable: bool = True
    writable: bool = True
    answers: bool = True

    async def preflight(self, plan: RoutePlan) -> Preflight:
        return Preflight()

    async def apply(self, plan: RoutePlan, key: str) -> None:
        if not self.writable:
            self.did.append("apply refused")
            raise ActuatorError("cannot write rds.json", "No space left on device", "free space")
        self.did.append(f"apply {spell(plan)}")
        if self.obeys:
            self.plan = plan

    async def configured(self) -> Observed:
        if not self.readable:
            raise ActuatorError("cannot read Envoy's configuration", "refused")
        return Observed(split(self.plan), self.plan.level)

    async def sample(self, requests: int) -> Observed:
        by = "somebody" if self.answers else ""
        seen = await self.configured()
        return replace(seen, answered_by=(by,) * requests, answered_level=(self.plan.level.value,) * requests)


def split(plan: RoutePlan) -> dict[str, int]:
    return {pool: weight for pool, weight in plan.weights.items() if weight}


def spell(plan: RoutePlan) -> str:
    return " ".join(f"{pool}={weight}" for pool, weight in sorted(split(plan).items()))


@dataclass(slots=True)
class FakeReceipts:
    """A receipt book in memory."""

    did: list[str] = field(default_factory=list)
    kept: dict[str, Receipt] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    """States (or `intend`, or `steps`) that cannot be stored."""

    async def intend(self, receipt: Receipt) -> bool:
        if "intend" in self.refuses:
            raise StoreError("the database refuses", "disk full", "free space")
        mine = [r for r in self.kept.values() if (r.service, r.level) == (receipt.service, receipt.level)]
        if receipt.id in self.kept or any(r.state in BLOCKING_STATES for r in mine):
            return False
        self.did.append("receipt intended")
        self.kept[receipt.id] = receipt
        return True

    async def move(
        self, receipt_id: str, state: ReceiptState, at: datetime, detail: str = "", steps: tuple[Step, ...] = ()
    ) -> Receipt:
        if "fenced" in self.refuses:
            raise FencedError("not in charge any more")
        if state in self.refuses:
            raise StoreError("the database refuses", "disk full", "free space")
        self.did.append(f"receipt {state}")
        before = self.kept[receipt_id]
        if before.state not in OPEN_STATES:
            return before
        times: Mapping[ReceiptState, datetime] = {**before.times, state: at}
        self.kept[receipt_id] = replace(
            before, state=state, times=times, detail=detail or before.detail, steps=steps or before.steps
        )
        return self.kept[receipt_id]

    async def note_steps(self, receipt_id: str, steps: tuple[Step, ...]) -> None:
        if "steps" in self.refuses:
            raise StoreError("the database refuses", "disk full", "free space")
        if self.kept[receipt_id].state in OPEN_STATES:
            self.kept[receipt_id] = replace(self.kept[receipt_id], steps=steps)

    async def open_receipts(self, service: str) -> tuple[Receipt, ...]:
        mine = (r for r in self.kept.values() if r.service == service and r.state in OPEN_STATES)
        return tuple(sorted(mine, key=lambda r: r.decided_at))

    def states(self) -> list[ReceiptState]:
        return [r.state for r in self.kept.values()]


@dataclass(slots=True)
class FakeIncidents:
    """An incident book in memory."""

    kept: dict[str, Incident] = field(default_factory=dict)
    notes: list[tuple[str, Entry]] = field(default_factory=list)

    cases: dict[str, Case] = field(default_factory=dict)

    async def take(self, service: str, notices: tuple[Notice, ...], now: datetime) -> Ruling:
        ruling = correlate(notices, (replace(c, incident=self.kept[c.incident.id]) for c in self.cases.values()), now)
        for case in ruling.cases:
            old = self.cases.get(case.incident.id)
            self.cases[case.incident.id] = Case(case.incident, {**(old.members if old else {}), **case.members})
            self.kept[case.incident.id] = case.incident
        self.notes.extend(ruling.entries)
        return ruling

    async def move(self, incident_id: str, state: IncidentState, at: datetime) -> None:
        moved = replace(self.kept[incident_id], state=state)
        if state is IncidentState.MITIGATED:
            moved = replace(moved, mitigated_at=moved.mitigated_at or at)
        if state is IncidentState.RESOLVED:
            moved = replace(moved, resolved_at=at)
        self.kept[incident_id] = moved

    async def note(self, incident_id: str, entry: Entry) -> None:
        self.notes.append((incident_id, entry))

    async def open_incidents(self, service: str) -> tuple[Incident, ...]:
        return tuple(i for i in self.kept.values() if i.service == service and i.open)

    def texts(self, kind: str) -> list[str]:
        return [entry.text for _, entry in self.notes if entry.kind == kind]


@dataclass(slots=True)
class FakeInstructions:
    """An instruction book in memory."""

    kept: dict[str, Instruction] = field(default_factory=dict)
    writable: bool = True

    async def begin(self, instruction: Instruction) -> None:
        if not self.writable:
            raise StoreError("the database refuses", "disk full", "free space")
        assert instruction.id not in self.kept
        self.kept[instruction.id] = instruction

    async def end(self, instruction_id: str, at: datetime, by: str, why: str) -> None:
        if instruction_id in self.kept and self.kept[instruction_id].ended_at is None:
            self.kept[instruction_id] = replace(self.kept[instruction_id], ended_at=at, ended_by=by, ended_why=why)

    async def in_force(self, service: str) -> tuple[Instruction, ...]:
        return tuple(i for i in self.kept.values() if i.service == service and i.ended_at is None)

    async def recent(self, service: str, limit: int) -> tuple[Instruction, ...]:
        return tuple(reversed([i for i in self.kept.values() if i.service == service]))[:limit]


@dataclass(slots=True)
class FakeLeases:
    """A lease book in memory."""

    kept: dict[str, Lease] = field(default_factory=dict)

    async def intend(self, lease: Lease) -> None:
        self.kept[lease.id] = lease

    async def move(self, lease_id: str, state: LeaseState, at: datetime, detail: str = "") -> Lease:
        healed_at = at if state is LeaseState.HEALED else None
        self.kept[lease_id] = replace(self.kept[lease_id], state=state, healed_at=healed_at, detail=detail)
        return self.kept[lease_id]

    async def open_leases(self) -> tuple[Lease, ...]:
        return tuple(lease for lease in self.kept.values() if lease.open)

    async def of_drill(self, drill_id: str) -> tuple[Lease, ...]:
        return tuple(lease for lease in self.kept.values() if lease.drill_id == drill_id)


@dataclass(slots=True)
class FakeDrills:
    """A drill book in memory, newest first."""

    kept: dict[str, Drill] = field(default_factory=dict)

    async def begin(self, drill: Drill) -> bool:
        if drill.id in self.kept:
            return False
        self.kept[drill.id] = drill
        return True

    async def end(self, drill: Drill) -> Drill:
        if drill.id not in self.kept or self.kept[drill.id].outcome is Outcome.RUNNING:
            self.kept[drill.id] = drill
        return self.kept[drill.id]

    async def call_off(self, drill_id: str, why: str) -> Drill | None:
        found = self.kept.get(drill_id)
        if found is None or found.outcome is not Outcome.RUNNING:
            return None
        self.kept[drill_id] = replace(found, called_off=found.called_off or why)
        return self.kept[drill_id]

    async def recent(self, limit: int) -> tuple[Drill, ...]:
        return tuple(reversed(self.kept.values()))[:limit]

    async def get(self, drill_id: str) -> Drill | None:
        return self.kept.get(drill_id)


@dataclass(slots=True)
class FakeDriver:
    """A substrate that heals what it is asked to, unless it is told to misbehave."""

    reverted: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """By lease: what of it cannot be got rid of yet."""
    broken: set[str] = field(default_factory=set)
    """Leases that cannot be healed."""

    async def apply(self, lease: Lease) -> str:
        return f"broke {lease.endpoint.name}"

    async def prove(self, lease: Lease) -> str:
        return f"{lease.endpoint.name} is gone"

    async def revert(self, lease: Lease) -> str:
        if lease.id in self.broken:
            raise FaultError("cannot heal", "permission denied")
        self.reverted.append(lease.id)
        return "let go"

    async def residue(self, lease: Lease) -> str:
        return self.left.get(lease.id, "")


@dataclass(slots=True)
class FakeHand:
    """Carries out errands at once, unless it is told to misbehave."""

    did: list[str] = field(default_factory=list)
    refuses: str = ""
    """What preflight refuses with."""
    able: bool = True
    seen: bool = True
    looks: bool = True
    """False: nothing of it can be looked at."""
    revertible: bool = True
    keys: list[str] = field(default_factory=list)

    async def preflight(self, errand: Errand) -> Preflight:
        return Preflight(self.refuses, before={"was": 3})

    async def apply(self, errand: Errand, key: str) -> str:
        if not self.able:
            raise ActuatorError("cannot do it", "no")
        self.keys.append(key)
        self.did.append(f"do {spell_actions((errand,))}")
        return "done"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:
        if not self.revertible:
            raise ActuatorError("cannot undo it", "gone")
        self.keys.append(key)
        self.did.append(f"undo {spell_actions((errand,))} to {before['was']}")
        return "undone"

    async def observe(self, errand: Errand, key: str, done: str) -> str:
        if not self.looks:
            return done
        return "seen" if self.seen else ""


def p0_row(hold_s: float = 30.0) -> Row:
    when = Condition("endpoints_down", above=1.0)
    return Row(Level.P0, when, (SwitchPool(),), timedelta(minutes=5), ReleasePlan(hold=timedelta(seconds=hold_s)))


def receipt(state: ReceiptState, key: str = "r1", decided_at: datetime = T0, **changes: object) -> Receipt:
    made = Receipt(
        key, "chat", Level.P0, "switch_pool to standby", NORMAL, SWITCHED, state, ("endpoints_down is 100%",),
        decided_at, decided_at, {state: decided_at},
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def lease(key: str, deadline: datetime, state: LeaseState = LeaseState.PROVEN) -> Lease:
    endpoint = Endpoint(key, "primary", "http://127.0.0.1:1", node=f"node-{key}")
    return Lease(key, "drill", FaultKind.NODE_KILL, endpoint, deadline, state, T0)


def fixed(at: datetime) -> Callable[[], datetime]:
    return lambda: at
