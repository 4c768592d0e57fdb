"""No page, however wrong, brings anything but the errors a user can act on."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.errors import PolicyError, UsageError
from controlplane.policy.load import default_text, load, loads
from controlplane.policy.page import overlay
from controlplane.policy.quantity import duration, ratio, spell_duration

PAGE = Path("page.yaml")
BASE: dict[str, Any] = {
    "service": "chat",
    "fleet": {
        "pools": {name: {"endpoints": {"file": f"{name}.json"}} for name in ("primary", "standby", "base")},
        "gateway": {"envoy": {"xds_dir": "xds", "admin": "http://a", "listener": "http://b"}},
    },
}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5s", "50%", "breach", "warn", "primary", "1h", "100%", "auto", "2026-01-01"])
)
words = st.sampled_from(
    ["service", "fleet", "pools", "primary", "endpoints", "static", "file", "http", "any", "all", "above", "for", "P0"]
)
nested = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def paths(node: Any, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [here]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += paths(value, (*here, key))
    return found


WHOLE: dict[str, Any] = overlay(yaml.safe_load(default_text()), BASE)


def replaced(node: Any, path: tuple[str | int, ...], value: Any) -> Any:
    if not path:
        return value
    head, *rest = path
    if isinstance(node, list):
        return [replaced(item, tuple(rest), value) if i == head else item for i, item in enumerate(node)]
    return {k: replaced(item, tuple(rest), value) if k == head else item for k, item in node.items()}


def read_or_refuse(text: str) -> None:
    with suppress(PolicyError):
        loads(text, PAGE)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
@settings(max_examples=150)
def test_any_text_is_a_policy_or_a_policy_error(text: str) -> None:
    read_or_refuse(text)


@given(st.text(alphabet=list("{}[]:,-#&*!|>'\"%@`?\n \tab01.~<"), max_size=60))
@settings(max_examples=200)
def test_any_scramble_of_yaml_signs_is_a_policy_or_a_policy_error(text: str) -> None:
    read_or_refuse(text)


@given(nested)
@settings(max_examples=60)
def test_any_nested_data_is_a_policy_or_a_policy_error(data: Any) -> None:
    read_or_refuse(yaml.safe_dump(data))


@given(path=st.sampled_from(paths(WHOLE)), value=nested)
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
def test_any_value_in_any_place_of_a_whole_page_is_a_policy_or_a_policy_error(
    path: tuple[str | int, ...], value: Any
) -> None:
    read_or_refuse(yaml.safe_dump(replaced(WHOLE, path, value)))


@given(path=st.sampled_from(paths(WHOLE)), value=scalars)
@settings(max_examples=40)
def test_a_page_that_loads_is_resolved_to_a_page_that_loads_the_same(path: tuple[str | int, ...], value: Any) -> None:
    try:
        loaded = loads(yaml.safe_dump(replaced(WHOLE, path, value)), PAGE)
    except PolicyError:
        return
    assert loads(yaml.safe_dump(dict(loaded.resolved)), PAGE).policy == loaded.policy


@given(st.binary(max_size=100))
@settings(max_examples=60)
def test_any_bytes_in_a_file_are_a_policy_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    with suppress(UsageError):
        load(path)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_spelled_duration_reads_back_as_itself(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert duration(spell_duration(value)) == value


@given(st.integers(min_value=0, max_value=10_000))
def test_a_percentage_reads_as_the_same_share_as_the_bare_number(hundredths: int) -> None:
    assert abs(ratio(f"{hundredths / 100}%") - ratio(hundredths / 10_000)) < 1e-12


@given(scalars | st.lists(scalars))
def test_a_quantity_is_read_or_refused_with_a_value_error(value: Any) -> None:
    for read in (duration, ratio):
        with suppress(ValueError):
            read(value)
