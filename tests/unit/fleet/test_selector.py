"""Label selectors are read as Kubernetes reads them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.fleet.selector import exactly, parse_selector, selects

LABELS = {"app": "vllm", "tier": "gold", "empty": ""}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("", True), ("app=vllm", True), ("app==vllm", True), ("app=other", False), ("app = vllm , tier=gold", True),
        ("app!=vllm", False), ("absent!=x", True), ("tier in (gold, silver)", True), ("tier in (silver)", False),
        ("tier notin (gold)", False), ("absent notin (gold)", True), ("app", True), ("absent", False), ("!app", False),
        ("!absent", True), ("app=vllm,tier in (gold,silver),!absent", True), ("empty=", True), ("app=", False),
        ("example.com/app=vllm", False),
    ],
)  # fmt: skip
def test_a_selector_selects_what_kubernetes_would(selector: str, *, selected: bool) -> None:
    assert selects(parse_selector(selector), LABELS) is selected


@pytest.mark.parametrize(
    "selector", ["app=v l", "app in gold", "=x", "app=a,,b=c", "a=b=c", "tier in (a", "-a=b", "app>3"]
)
def test_a_part_that_cannot_be_read_is_named(selector: str) -> None:
    with pytest.raises(ValueError, match="is no part of a label selector"):
        parse_selector(selector)


names = st.from_regex(r"[a-z][a-z0-9]{0,4}", fullmatch=True)


@given(st.dictionaries(names, names), st.dictionaries(names, names))
def test_match_labels_are_equalities(wanted: dict[str, str], labels: dict[str, str]) -> None:
    spelt = ",".join(f"{key}={value}" for key, value in wanted.items())
    assert parse_selector(spelt) == exactly(wanted)
    assert selects(exactly(wanted), labels) is (wanted.items() <= labels.items())


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        selects(parse_selector(text), {})
