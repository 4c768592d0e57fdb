"""An incident is open until it is resolved; mitigated is not over."""

from datetime import UTC, datetime

import pytest

from controlplane.incidents.incident import Incident, IncidentState


@pytest.mark.parametrize(
    ("state", "is_open"),
    [(IncidentState.OPEN, True), (IncidentState.MITIGATED, True), (IncidentState.RESOLVED, False)],
)
def test_an_incident_is_open_until_it_is_resolved(state: IncidentState, *, is_open: bool) -> None:
    assert Incident("i", "chat", "P0", "t", state, datetime(2026, 3, 3, tzinfo=UTC)).open is is_open
