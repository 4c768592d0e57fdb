"""Endpoints come from lists that people and service discovery write."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import UnreachableError
from controlplane.fleet.files import FileInventory, resolve_address
from controlplane.fleet.inventory import file_sd_endpoints, static_endpoints
from controlplane.fleet.model import Endpoint, EndpointSource, FleetSpec, Inventory, PoolSpec


def test_written_out_endpoints_are_named_by_their_pool_and_place() -> None:
    assert static_endpoints("primary", "full", ["http://10.0.0.1:8000/", "https://b.example"]) == (
        Endpoint("primary-0", "primary", "http://10.0.0.1:8000", "10.0.0.1", "full"),
        Endpoint("primary-1", "primary", "https://b.example", "b.example", "full"),
    )


def test_a_file_sd_document_names_endpoints_nodes_and_models() -> None:
    document = [
        {"targets": ["10.0.0.1:8000"], "labels": {"endpoint": "a", "node": "rack-1", "model": "small"}},
        {"targets": ["10.0.0.2:8000", "http://10.0.0.3:1"], "labels": {"__scheme__": "https"}},
        {"targets": []},
    ]
    assert file_sd_endpoints("base", "", document) == (
        Endpoint("a", "base", "http://10.0.0.1:8000", "rack-1", "small"),
        Endpoint("base-1", "base", "https://10.0.0.2:8000", "10.0.0.2", ""),
        Endpoint("base-2", "base", "http://10.0.0.3:1", "10.0.0.3", ""),
    )


def test_the_model_of_the_page_wins_over_a_label() -> None:
    document = [{"targets": ["a:1"], "labels": {"model": "small"}}]
    assert file_sd_endpoints("base", "large", document)[0].model == "large"


@pytest.mark.parametrize(
    "document",
    [{}, 5, None, "x", [5], [[]], [{}], [{"targets": "a:1"}], [{"targets": ["a:1"], "labels": None}],
     [{"targets": ["a:1"], "labels": ["x"]}]],
)  # fmt: skip
def test_a_document_of_another_shape_is_refused_with_a_value_error(document: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any words
        file_sd_endpoints("base", "", document)


values = st.none() | st.integers() | st.text(max_size=5)
documents = st.recursive(
    values,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["targets", "labels", "endpoint", "node"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.lists(documents, max_size=3))
def test_any_document_is_read_or_refused(document: list[Any]) -> None:
    with suppress(ValueError):
        file_sd_endpoints("base", "", document)


def test_an_inventory_answers_by_pool_and_by_name() -> None:
    one, two = Endpoint("a", "primary", "http://a"), Endpoint("b", "standby", "http://b")
    inventory = Inventory((one, two))
    assert inventory.pool("standby") == (two,)
    assert inventory.pool("cache") == ()
    assert inventory.by_name() == {"a": one, "b": two}


FLEET = FleetSpec(
    {
        "primary": PoolSpec(EndpointSource(file="primary.json"), "full"),
        "standby": PoolSpec(EndpointSource(static=("http://s:1",))),
    }
)


def write(path: Path, *targets: str, age: int = 0) -> None:
    path.write_text(json.dumps([{"targets": list(targets)}]), encoding="utf-8")
    os.utime(path, ns=(age, age))


def urls(inventory: Inventory) -> list[str]:
    return [e.url for e in inventory.endpoints]


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    source = FileInventory(FLEET, tmp_path)
    write(tmp_path / "primary.json", "a:1", age=1)
    assert urls(source.read()) == ["http://a:1", "http://s:1"]
    write(tmp_path / "primary.json", "b:1", age=2)
    assert urls(source.read()) == ["http://b:1", "http://s:1"]


@pytest.mark.parametrize("content", [None, "", "[{", '{"a": 1}', '[{"targets": ["x:1"], "labels": null}]'])
def test_a_file_that_cannot_be_read_is_named_and_the_last_known_endpoints_stand_in(
    tmp_path: Path, content: str | None
) -> None:
    source, path = FileInventory(FLEET, tmp_path), tmp_path / "primary.json"
    write(path, "a:1", age=1)
    source.read()
    if content is None:
        path.unlink()
    else:
        path.write_text(content, encoding="utf-8")
        os.utime(path, ns=(2, 2))
    inventory = source.read()
    assert urls(inventory) == ["http://a:1", "http://s:1"]
    assert len(inventory.problems) == 1
    assert "primary.json" in inventory.problems[0]


def test_a_file_that_was_never_there_leaves_its_pool_empty_and_says_so(tmp_path: Path) -> None:
    inventory = FileInventory(FLEET, tmp_path).read()
    assert urls(inventory) == ["http://s:1"]
    assert "pool primary" in inventory.problems[0]


def test_an_address_is_written_out_or_stands_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("127.0.0.1:9901\n", encoding="utf-8")
    assert resolve_address("http://10.0.0.1:1/", tmp_path) == "http://10.0.0.1:1"
    assert resolve_address("file:admin", tmp_path) == "http://127.0.0.1:9901"
    with pytest.raises(UnreachableError) as refused:
        resolve_address("file:absent", tmp_path)
    assert refused.value.fix
