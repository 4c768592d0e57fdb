"""A gate that cannot be evaluated is closed."""

from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from controlplane.chaos.safety import GateFacts, GateSpec, Go, Refusal, gate, left_of_period
from controlplane.slo.burn import Budget

OPEN = GateFacts(
    0, True, "", "none", 0, datetime(2026, 3, 3, tzinfo=UTC), budget_left=0.8, budget_burns=False, frozen="", halted="",
    leads=True, clock_off_s=0.01, too_much=(), guards=(),
)  # fmt: skip
ALL = GateSpec()
NONE = GateSpec(error_budget_left=0.0, no_open_incident=False, standby_ready=False)


def test_a_drill_starts_when_every_gate_is_open_and_says_what_each_one_saw() -> None:
    found = gate(ALL, OPEN)
    assert isinstance(found, Go)
    assert "80% of the error budget is left" in found.seen
    assert len(found.seen) == len(set(found.seen)) == 13


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"open_incidents": 1}, "1 incident is open"),
        ({"open_incidents": 2}, "2 incidents are open"),
        ({"open_incidents": None}, "incidents could not be counted"),
        ({"standby_answers": False}, "the standby does not answer a completion"),
        ({"standby_answers": None}, "the standby is unknown"),
        ({"running_drill": "d7"}, "drill d7 is still running"),
        ({"running_drill": None}, "whether a drill runs is unknown"),
        ({"level": "P2"}, "the service is degraded to P2"),
        ({"leases_open": 1}, "1 fault is still leased"),
        ({"leases_open": None}, "faults could not be counted"),
        ({"budget_left": 0.2}, "20% of the error budget is left, the drill wants 25%"),
        ({"budget_left": -0.5}, "-50% of the error budget is left, the drill wants 25%"),
        ({"budget_left": None}, "the error budget is unknown: nothing has been counted"),
        ({"budget_burns": True}, "the error budget burns fast"),
        ({"frozen": "2026-12-24/2027-01-02"}, "drills are frozen: 2026-12-24/2027-01-02"),
        ({"frozen": None}, "freeze windows are unknown"),
        ({"halted": "smoke"}, "drills are halted: smoke"),
        ({"halted": None}, "whether drills are halted is unknown"),
        ({"leads": False}, "another control plane leads"),
        ({"leads": None}, "who leads is unknown"),
        ({"clock_off_s": -3.2}, "the clock is off by -3.2 s"),
        ({"clock_off_s": None}, "the clock has not been checked yet"),
        ({"too_much": ("all would be gone",)}, "all would be gone"),
        ({"too_much": None}, "what would be left is unknown"),
        ({"guards": ("availability is unknown",)}, "availability is unknown"),
        ({"guards": None}, "the guards cannot be evaluated"),
        ({"guards": None, "unknown_guards": ("availability is unknown",)}, "availability is unknown"),
    ],
)
def test_one_closed_gate_refuses_the_drill_with_its_reason(changes: dict[str, object], reason: str) -> None:
    assert gate(ALL, replace(OPEN, **changes)) == Refusal((reason,))  # type: ignore[arg-type]


def test_nothing_that_is_unknown_opens_a_gate() -> None:
    unknowable = [f.name for f in fields(GateFacts) if f.name not in ("now", "level", "unknown_guards")]
    for name in unknowable:
        found = gate(ALL, replace(OPEN, **{name: None}))  # type: ignore[arg-type]
        assert isinstance(found, Refusal), name
        assert found.only_unknown, name


def test_a_refusal_for_a_reason_is_not_one_for_want_of_knowledge() -> None:
    found = gate(ALL, replace(OPEN, open_incidents=None, level="P0"))
    assert isinstance(found, Refusal)
    assert not found.only_unknown


@pytest.mark.parametrize(
    "changes",
    [{"running_drill": "d7"}, {"level": "P0"}, {"leases_open": 3}, {"halted": "x"}, {"frozen": "x"}, {"leads": False},
     {"clock_off_s": 9.0}, {"too_much": ("x",)}, {"guards": ("x",)}],
)  # fmt: skip
def test_some_gates_cannot_be_left_out(changes: dict[str, object]) -> None:
    assert isinstance(gate(NONE, replace(OPEN, **changes)), Refusal)  # type: ignore[arg-type]


def test_the_others_can() -> None:
    unknown = replace(OPEN, open_incidents=None, standby_answers=None, budget_left=None, budget_burns=None)
    assert isinstance(gate(NONE, unknown), Go)


def test_every_reason_is_told() -> None:
    found = gate(ALL, GateFacts(None, None, "d", "P0", None, OPEN.now))
    assert isinstance(found, Refusal)
    assert len(found.reasons) == 12


@pytest.mark.parametrize(
    ("left", "watched_s", "expected"), [(-9.0, 360.0, 0.0), (0.5, 3600.0, 0.5), (0.5, 7200.0, 0.5), (None, 60.0, None)]
)
def test_a_budget_is_spent_in_proportion_to_the_time_it_was_watched(
    left: float | None, watched_s: float, expected: float | None
) -> None:
    assert left_of_period(Budget(0.999, left, (), 1.0, watched_s), 3600.0) == expected
