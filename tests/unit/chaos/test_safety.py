"""A gate that cannot be evaluated is closed."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controlplane.chaos.safety import GateFacts, GateSpec, Go, Refusal, gate

OPEN = GateFacts(0, True, "", "none", 0, datetime(2026, 3, 3, tzinfo=UTC))
ALL = GateSpec()
NONE = GateSpec(no_open_incident=False, standby_ready=False)


def test_a_drill_starts_when_every_gate_is_open_and_says_what_each_one_saw() -> None:
    found = gate(ALL, OPEN)
    assert isinstance(found, Go)
    assert len(found.seen) == 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"open_incidents": 1}, "1 incident is open"),
        ({"open_incidents": 2}, "2 incidents are open"),
        ({"open_incidents": None}, "incidents could not be counted"),
        ({"standby_answers": False}, "the standby does not answer a completion"),
        ({"standby_answers": None}, "the standby is unknown"),
        ({"running_drill": "d7"}, "drill d7 is still running"),
        ({"level": "P2"}, "the service is degraded to P2"),
        ({"leases_open": 1}, "1 fault is still leased"),
        ({"leases_open": None}, "faults could not be counted"),
    ],
)
def test_one_closed_gate_refuses_the_drill_with_its_reason(changes: dict[str, object], reason: str) -> None:
    assert gate(ALL, replace(OPEN, **changes)) == Refusal((reason,))  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"running_drill": "d7"}, {"level": "P0"}, {"leases_open": 3}])
def test_some_gates_cannot_be_left_out(changes: dict[str, object]) -> None:
    assert isinstance(gate(NONE, replace(OPEN, **changes)), Refusal)  # type: ignore[arg-type]


def test_the_others_can() -> None:
    assert isinstance(gate(NONE, replace(OPEN, open_incidents=None, standby_answers=None)), Go)


def test_every_reason_is_told() -> None:
    found = gate(ALL, GateFacts(None, None, "d", "P0", None, OPEN.now))
    assert isinstance(found, Refusal)
    assert len(found.reasons) == 5
