"""A dry run moves nothing, and nothing that it shows says otherwise."""

import pytest

from controlplane.degradation.actuator import RoutePlan, configured_as, shows
from controlplane.degradation.actuators.dry_run import DryRunActuator
from controlplane.degradation.matrix import Level
from controlplane.errors import ActuatorError

SWITCHED = RoutePlan({"standby": 100}, Level.P0)


async def test_what_it_shows_is_how_things_are_and_beside_it_what_it_took_note_of() -> None:
    lever = DryRunActuator(("primary", "standby"), None)
    assert (await lever.configured()).rehearsed is None
    await lever.apply(SWITCHED, "k")
    seen = await lever.sample(3)
    assert seen.weights == {"primary": 100}
    assert seen.level == ""
    assert seen.answered_by == ()
    assert seen.rehearsed == SWITCHED
    assert shows(seen, SWITCHED)
    assert not configured_as(seen, RoutePlan({"primary": 100}))


async def test_a_pool_that_is_not_there_is_refused_as_it_would_be_in_earnest() -> None:
    with pytest.raises(ActuatorError):
        await DryRunActuator(("primary",), None).apply(SWITCHED, "k")
