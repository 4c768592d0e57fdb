"""The dashboard is what Grafana 11 to 13 take as it is: no leftovers, no nulls, stable names."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.render.artefacts import render
from tests.golden.cases import DRILLS, NAMES, hostile_policy, policy

PANELS = {"row", "stat", "timeseries", "state-timeline", "bargauge", "table", "text"}
OLD_KEYS = {"editable", "error", "height", "span", "minSpan", "maxDataPoints", "timeFrom", "timeShift", "cacheTimeout"}


def dashboard(name: str) -> dict[str, Any]:
    made = render(policy(name), DRILLS, "controlplane.yaml")
    loaded: dict[str, Any] = json.loads(made["dashboards/fleet-overview.json"])
    return loaded


def nulls(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nulls(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from nulls(inner, path)


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_ids_of_their_own_and_places_within_the_grid(name: str) -> None:
    panels = dashboard(name)["panels"]
    assert sorted(panel["id"] for panel in panels) == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", NAMES)
def test_only_current_panel_kinds_and_keys_are_left(name: str) -> None:
    made = dashboard(name)
    assert made["schemaVersion"] == 41
    assert made["uid"] == "controlplane-fleet-overview"
    assert made["graphTooltip"] == 1
    for panel in made["panels"]:
        assert panel["type"] in PANELS
        assert not panel.keys() & OLD_KEYS, panel["title"]
        assert "fieldOptions" not in panel.get("options", {})


@pytest.mark.parametrize("name", NAMES)
def test_null_stands_only_for_the_base_of_thresholds(name: str) -> None:
    assert {path[-2:] for path in nulls(dashboard(name))} == {("steps", "value")}


@pytest.mark.parametrize("name", NAMES)
def test_every_query_names_the_chosen_data_source_and_a_way_to_run(name: str) -> None:
    for panel in dashboard(name)["panels"]:
        refs = [target["refId"] for target in panel.get("targets", ())]
        assert len(refs) == len(set(refs))
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["range"] is not target["instant"]
            assert not target.keys() & {"intervalFactor", "step", "metric", "query", "target"}


def test_every_panel_says_what_it_shows() -> None:
    assert all(panel.get("description") for panel in dashboard("full")["panels"] if panel["type"] != "row")


def test_the_policys_levels_are_the_colour_steps() -> None:
    (latency,) = (p for p in dashboard("full")["panels"] if p["title"] == "Request latency, P99")
    steps = latency["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [("green", None), ("yellow", 1.0), ("red", 2.0)]
    (availability,) = (
        p for p in dashboard("full")["panels"] if p["title"] == "Availability" and p["type"] == "timeseries"
    )
    steps = availability["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [("red", None), ("yellow", 0.9), ("green", 0.95)]


def test_the_pool_variable_starts_at_all_and_the_service_at_the_policys() -> None:
    source, service, pool = dashboard("full")["templating"]["list"]
    assert source["type"] == "datasource"
    assert service["current"]["value"] == "deepseek-chat"
    assert pool["current"] == {"text": ["All"], "value": ["$__all"]}


def test_the_description_says_who_made_the_file() -> None:
    said = dashboard("full")["description"]
    assert said.startswith("rendered from controlplane.yaml by `controlplane render`; edit controlplane.yaml")


def test_a_hostile_service_name_is_only_ever_a_value() -> None:
    made = json.loads(render(hostile_policy(), DRILLS, "x")["dashboards/fleet-overview.json"])
    exprs = [target["expr"] for panel in made["panels"] for target in panel.get("targets", ())]
    assert not [expr for expr in exprs if "vector(1)" in expr]
