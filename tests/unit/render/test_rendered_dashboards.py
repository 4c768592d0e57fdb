"""The dashboards are what Grafana 11 to 13 take as they are: valid, no leftovers, no nulls, stable names."""

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from controlplane.degradation.matrix import LEVELS
from controlplane.policy.model import Policy
from controlplane.render.artefacts import render
from controlplane.render.dashboards.provisioning import FOLDER_UID, MAX_BYTES
from controlplane.render.wording import page_name
from tests.golden.cases import DRILLS, NAMES, hostile_policy, policy
from tests.support.dashboards import dashboards, defined, panels, queries, used

SCHEMA = json.loads((Path(__file__).parents[2] / "data/grafana/schema.json").read_text(encoding="utf-8"))
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
FILES = ("control-plane.json", "degradation.json", "drills.json", "endpoint-detail.json", "fleet-overview.json")
ONLY_A_DATA_SOURCES = ("expr", "step", "titleFormat")
"""Keys of an annotation that Grafana's own types leave to its data source."""
EVERY = pytest.mark.parametrize(("name", "file"), [(name, file) for name in NAMES for file in FILES])


@cache
def made(name: str) -> dict[str, dict[str, Any]]:
    return dashboards(of(name))


def of(name: str) -> Policy:
    return hostile_policy() if name == "hostile" else policy(name)


def asking(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in panels(dashboard) if panel["type"] not in ("row", "text")]


def nulls(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nulls(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from nulls(inner, path)


def wrong(known: Draft7Validator, what: Any) -> list[str]:
    found = known.iter_errors(what)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


@cache
def known_as(kind: str) -> Draft7Validator:
    return Draft7Validator({"$ref": f"#/definitions/{kind}", "definitions": SCHEMA["dashboard"]["definitions"]})


@cache
def known_of(kind: str, part: str) -> Draft7Validator | None:
    """Return what validates the `options` or the fields' `custom` options of a kind of panel."""
    schema = SCHEMA["panels"][kind].get(part)
    return Draft7Validator(schema) if schema else None


def wrong_with_panel(panel: dict[str, Any]) -> list[str]:
    """Hold one panel against Grafana's types: itself, its options, its fields' own options."""
    if panel["type"] == "row":
        return wrong(known_as("RowPanel"), panel | {"panels": []})
    rest = deepcopy(panel)
    options = rest.pop("options", {})
    custom = rest.get("fieldConfig", {}).get("defaults", {}).pop("custom", None)
    found = wrong(known_as("Panel"), rest)
    for part, given in (("options", options), ("custom", custom)):
        known = known_of(panel["type"], part)
        if given is not None:
            found += wrong(known, given) if known else [f"{part}: this kind has none"]
    return found


def test_there_are_five_dashboards_with_names_that_links_can_rely_on() -> None:
    assert sorted(made("full")) == sorted(FILES)
    uids = {file: dashboard["uid"] for file, dashboard in made("full").items()}
    assert uids["fleet-overview.json"] == "controlplane-fleet-overview"
    assert len(set(uids.values())) == len(FILES)
    assert all(len(uid) <= 40 for uid in uids.values()), "Grafana takes no longer uid"


@EVERY
def test_grafanas_own_types_know_every_key_and_every_value(name: str, file: str) -> None:
    dashboard = deepcopy(made(name)[file])
    found = [f"{panel['title']}: {text}" for panel in panels(dashboard) for text in wrong_with_panel(panel)]
    dashboard["panels"] = []
    for mark in dashboard["annotations"]["list"]:
        for key in ONLY_A_DATA_SOURCES:
            mark.pop(key, None)
    for variable in dashboard["templating"]["list"]:
        variable.pop("definition", None)
    assert found + wrong(known_as("Dashboard"), dashboard) == []


def test_the_schema_refuses_what_grafanalib_leaves_behind() -> None:
    (panel, *_) = asking(made("full")["fleet-overview.json"])
    assert wrong_with_panel(panel) == []
    assert wrong_with_panel(panel | {"editable": True})
    assert wrong_with_panel(panel | {"options": {"fieldOptions": {}}})


@EVERY
def test_panels_have_numbers_of_their_own_and_places_within_the_grid(name: str, file: str) -> None:
    dashboard = made(name)[file]
    numbers = [panel["id"] for panel in panels(dashboard)]
    assert len(numbers) == len(set(numbers))
    for beside in (dashboard["panels"], *(p["panels"] for p in dashboard["panels"] if p.get("panels"))):
        taken: set[tuple[int, int]] = set()
        for panel in beside:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not taken & cells, panel["title"]
            taken |= cells


def test_a_panels_number_is_its_own_whatever_stands_before_it() -> None:
    """A page with a response cache has panels that another has not, in the midst of the same dashboard."""
    full, minimal = (
        {p["title"]: p["id"] for p in panels(made(name)["endpoint-detail.json"])} for name in ("full", "minimal")
    )
    assert {title: full[title] for title in minimal if title in full} == {
        title: number for title, number in minimal.items() if title in full
    }


@EVERY
def test_what_all_dashboards_have_in_common(name: str, file: str) -> None:
    dashboard = made(name)[file]
    assert dashboard["schemaVersion"] == 41
    assert dashboard["graphTooltip"] == 1
    assert dashboard["editable"] is False
    assert "controlplane" in dashboard["tags"]
    assert dashboard["description"].startswith(
        "rendered from controlplane.yaml by `controlplane render`; edit controlplane.yaml"
    )
    others, console, runbooks = dashboard["links"]
    assert (others["type"], others["tags"], others["includeVars"]) == ("dashboards", ["controlplane"], True)
    assert (console["url"], runbooks["url"]) == ("${console:raw}", "${console:raw}/runbooks")


@EVERY
def test_null_stands_only_for_the_base_of_thresholds(name: str, file: str) -> None:
    assert {path[-2:] for path in nulls(made(name)[file])} == {("steps", "value")}
    for panel in asking(made(name)[file]):
        first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert first["value"] is None
        values = [step["value"] for step in others]
        assert all(a < b for a, b in pairwise(values)), panel["title"]


@EVERY
def test_every_query_names_the_chosen_data_source_and_a_way_to_run(name: str, file: str) -> None:
    for panel in asking(made(name)[file]):
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == SOURCE
            assert target["range"] is not target["instant"]
            assert not target.keys() & {"intervalFactor", "step", "metric", "query", "target"}
    for asked in (*made(name)[file]["annotations"]["list"], *made(name)[file]["templating"]["list"][1:]):
        assert asked["datasource"] == SOURCE


@EVERY
def test_every_variable_that_is_asked_for_is_there(name: str, file: str) -> None:
    dashboard = made(name)[file]
    assert used(json.dumps(dashboard)) <= defined(dashboard)
    assert {row["repeat"] for row in dashboard["panels"] if row.get("repeat")} <= defined(dashboard)


@EVERY
def test_every_panel_says_what_it_shows_and_every_number_has_a_unit(name: str, file: str) -> None:
    silent = [p["title"] for p in panels(made(name)[file]) if p["type"] != "row" and len(p.get("description", "")) < 20]
    assert silent == []
    curves = [p for p in asking(made(name)[file]) if p["type"] in ("timeseries", "bargauge")]
    assert [p["title"] for p in curves if not p["fieldConfig"]["defaults"].get("unit")] == []


def test_what_only_some_fleets_have_is_shut_and_stands_once_for_each_pool_that_has_it() -> None:
    """A section that is open asks at once: where no GPU is, every panel of it would say `No data`."""
    for file in ("fleet-overview.json", "endpoint-detail.json"):
        dashboard = made("full")[file]
        (row,) = (panel for panel in dashboard["panels"] if panel.get("repeat"))
        assert (row["collapsed"], row["repeat"]) == (True, "gpu_pool")
        others = dashboard | {"panels": [panel for panel in dashboard["panels"] if panel is not row]}
        outside = {q.where for q in queries(others) if "DCGM_" in q.expr or '"gpu_' in q.expr}
        assert outside == set()


def test_the_policys_levels_are_the_colour_steps_and_drawn_as_lines() -> None:
    (latency,) = (p for p in panels(made("full")["fleet-overview.json"]) if p["title"] == "Request latency, P99")
    steps = latency["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [("green", None), ("yellow", 1.0), ("red", 2.0)]
    assert latency["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] == {"mode": "dashed"}
    (availability,) = (
        p
        for p in panels(made("full")["fleet-overview.json"])
        if p["title"] == "Availability" and p["type"] == "timeseries"
    )
    steps = availability["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in steps] == [("red", None), ("yellow", 0.9), ("green", 0.95)]


def test_a_state_has_one_colour_on_every_dashboard() -> None:
    seen: dict[str, set[str]] = {}
    for dashboard in made("full").values():
        for panel in panels(dashboard):
            if panel["title"] == "Level over time":
                (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
                for state in mapping["options"].values():
                    seen.setdefault(state["text"], set()).add(state["color"])
    assert set(seen) == {level.value for level in LEVELS}
    assert all(len(colors) == 1 for colors in seen.values())


@EVERY
def test_no_state_is_so_short_that_it_falls_between_two_steps(name: str, file: str) -> None:
    """Ten seconds of P0 in a week that is drawn by the hour."""
    drawn = [panel for panel in asking(made(name)[file]) if panel["type"] == "state-timeline"]
    looked_at = {"Leadership"}  # by instance, and both sides of a change count
    missing = [
        panel["title"] for panel in drawn for target in panel["targets"]
        if "_over_time(" not in target["expr"] and panel["title"] not in looked_at
    ]  # fmt: skip
    assert missing == []


def test_every_armed_row_leads_to_its_runbook() -> None:
    (rows,) = (p for p in panels(made("full")["degradation.json"]) if p["title"] == "Rows of the matrix")
    armed = policy("full").degradation.rows
    assert {link["url"] for link in rows["links"]} == {
        f"${{console:raw}}/runbooks/{page_name(row)}" for row in armed.values()
    }
    (promised,) = (p for p in panels(made("full")["fleet-overview.json"]) if p["title"] == "What is promised")
    assert all(f"/runbooks/{page_name(row)})" in promised["options"]["content"] for row in armed.values())


def test_pools_start_at_all_and_the_service_at_the_policys() -> None:
    variables = {v["name"]: v for v in made("full")["fleet-overview.json"]["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["service"]["current"]["value"] == "deepseek-chat"
    assert variables["pool"]["current"] == {"text": ["All"], "value": ["$__all"]}
    assert [name for name, variable in variables.items() if variable["hide"] == 2] == [
        "instance", "gpu_pool", "console",
    ]  # fmt: skip


def test_a_hostile_service_name_is_only_ever_a_value() -> None:
    for dashboard in made("hostile").values():
        assert [query.where for query in queries(dashboard) if "vector(1)" in query.expr or "pwned" in query.expr] == []


# --- how they come to a Grafana -------------------------------------------------------------------------------------


def rendered(path: str, name: str = "full") -> str:
    return render(of(name), DRILLS, "controlplane.yaml")[f"dashboards/provisioning/{path}"]


@pytest.mark.parametrize("name", ["minimal", "full", "hostile"])
def test_every_dashboard_is_a_config_map_that_the_sidecar_finds(name: str) -> None:
    maps = list(yaml.safe_load_all(rendered("configmaps.yaml", name)))
    there = made(name)
    assert [m["metadata"]["name"] for m in maps] == [f"controlplane-{file.removesuffix('.json')}" for file in BY_ORDER]
    for config_map in maps:
        assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((file, text),) = config_map["data"].items()
        assert json.loads(text) == there[file]
        assert len(text.encode()) < MAX_BYTES


BY_ORDER = ("fleet-overview.json", "endpoint-detail.json", "degradation.json", "drills.json", "control-plane.json")


def test_grafana_is_told_where_the_files_are_and_keeps_people_from_editing_them() -> None:
    (provider,) = yaml.safe_load(rendered("dashboards.yaml"))["providers"]
    assert (provider["type"], provider["allowUiUpdates"], provider["folderUid"]) == ("file", False, FOLDER_UID)
    assert provider["options"]["path"].startswith("/")
    (source,) = yaml.safe_load(rendered("datasource.yaml"))["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", "prometheus")
