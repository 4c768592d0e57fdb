"""What a fault can be told: known names, within bounds, and whole once it is stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.chaos.fault import FaultKind
from controlplane.chaos.parameters import PARAMETERS, Choice, number, settled, word
from controlplane.errors import UsageError


def test_every_kind_has_its_table() -> None:
    assert set(PARAMETERS) == set(FaultKind)


@pytest.mark.parametrize("kind", FaultKind)
def test_nothing_told_is_every_default_and_a_default_is_allowed(kind: FaultKind) -> None:
    found = settled(kind, {})
    assert set(found) == set(PARAMETERS[kind])
    assert settled(kind, found) == found


@pytest.mark.parametrize("kind", FaultKind)
@given(given_=st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.floats() | st.text(max_size=4)))
def test_anything_else_is_refused_with_the_way_out(kind: FaultKind, given_: dict[str, object]) -> None:
    if set(given_) <= set(PARAMETERS[kind]):
        return
    with pytest.raises(UsageError) as told:
        settled(kind, given_)
    assert told.value.why
    assert told.value.fix


def test_numbers_keep_to_their_bounds() -> None:
    for kind, parameters in PARAMETERS.items():
        for name, parameter in parameters.items():
            if isinstance(parameter, Choice):
                for each in parameter.words:
                    assert settled(kind, {name: each})[name] == each
            else:
                for value in (parameter.least, parameter.most):
                    assert settled(kind, {name: value})[name] == value
                for value in (parameter.least - 0.01, parameter.most + 0.01, float("nan")):
                    with pytest.raises(UsageError, match=name):
                        settled(kind, {name: value})


def test_a_lease_that_was_stored_without_a_parameter_has_its_default() -> None:
    kind = FaultKind.NETWORK_PARTITION
    assert (word({}, kind, "mode"), number({}, kind, "delay_ms")) == ("drop", 200.0)
    assert (word({"mode": "reset"}, kind, "mode"), number({"delay_ms": 5}, kind, "delay_ms")) == ("reset", 5.0)
