"""An experiment may ask the control plane for faults, and for nothing else in the world."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaoslib.experiment import ensure_experiment_is_valid
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.chaos import extension
from controlplane.chaos.experiment import read

SHIPPED = sorted((Path(__file__).parents[3] / "experiments").glob("*.yaml"))
PYTHON = {"type": "python", "module": "controlplane.chaos.extension"}


def shipped(path: Path) -> dict[str, Any]:
    page: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return page


def good() -> dict[str, Any]:
    return copy.deepcopy(
        {
            "title": "t",
            "description": "d",
            "extensions": [{"name": "other"}, {"name": "controlplane", "row": "P0", "blast_radius": "one pool"}],
            "runtime": {"rollbacks": {"strategy": "always"}},
            "steady-state-hypothesis": {
                "title": "s",
                "probes": [
                    {"type": "probe", "name": "p", "tolerance": True, "provider": {**PYTHON, "func": "level_is"}}
                ],
            },
            "method": [{"type": "action", "name": "a", "provider": {**PYTHON, "func": "inject"}}],
            "rollbacks": [{"type": "action", "name": "r", "provider": {**PYTHON, "func": "heal"}}],
        }
    )


def wrongs(page: object) -> list[str]:
    experiment, problems = read("mine", page)
    assert experiment is None
    for problem in problems:
        assert problem.where == "experiments/mine.yaml"
        assert problem.why
        assert problem.fix
    return [p.what for p in problems]


def test_there_are_experiments_to_ship() -> None:
    assert "node-kill" in [path.stem for path in SHIPPED]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_experiment_is_accepted_by_us_and_by_chaos_toolkit(path: Path) -> None:
    page = shipped(path)
    experiment, problems = read(path.stem, page)
    assert problems == ()
    assert experiment is not None
    assert experiment.name == path.stem
    assert experiment.row in ("P0", "P1", "P2")
    assert experiment.blast_radius
    ensure_experiment_is_valid(page)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_experiment_calls_what_the_extension_exports_with_arguments_it_takes(path: Path) -> None:
    page = shipped(path)
    for activity in (*page["steady-state-hypothesis"]["probes"], *page["method"], *page["rollbacks"]):
        provider = activity["provider"]
        assert provider["func"] in extension.__all__
        names = getattr(extension, provider["func"]).__annotations__
        assert set(provider.get("arguments", {})) <= set(names) - {"return"}


def test_a_good_experiment_is_read() -> None:
    experiment, problems = read("mine", good())
    assert problems == ()
    assert experiment is not None
    assert (experiment.row, experiment.blast_radius, experiment.title) == ("P0", "one pool", "t")


@pytest.mark.parametrize(
    "provider",
    [
        {"type": "process", "path": "rm", "arguments": "-rf /"},
        {"type": "http", "url": "http://evil"},
        {"type": "python", "module": "os", "func": "system"},
        {"type": "python", "module": "controlplane.chaos.extension.os", "func": "system"},
        {"type": "process", "module": "controlplane.chaos.extension"},
        {},
    ],
)
@pytest.mark.parametrize("place", ["probe", "method", "rollback"])
def test_any_other_provider_is_refused_wherever_it_stands(provider: dict[str, Any], place: str) -> None:
    page = good()
    activities = {
        "probe": page["steady-state-hypothesis"]["probes"], "method": page["method"], "rollback": page["rollbacks"],
    }  # fmt: skip
    activities[place][0]["provider"] = provider
    assert any("uses provider" in what for what in wrongs(page))


def test_a_function_that_the_extension_does_not_export_is_refused() -> None:
    page = good()
    page["method"][0]["provider"]["func"] = "_call"
    assert wrongs(page)


def test_a_tolerance_that_runs_something_of_its_own_is_refused() -> None:
    """Chaos Toolkit runs a tolerance of type `probe` like any other activity."""
    page = good()
    page["steady-state-hypothesis"]["probes"][0]["tolerance"] = {
        "type": "probe", "name": "sneaky", "provider": {"type": "process", "path": "sh", "arguments": "-c id"},
    }  # fmt: skip
    assert wrongs(page)


def test_a_configuration_that_runs_something_of_its_own_is_refused() -> None:
    """Chaos Toolkit runs configuration entries of type `probe` before anything else."""
    page = good()
    page["configuration"] = {
        "x": {"type": "probe", "name": "sneaky", "provider": {"type": "process", "path": "sh", "arguments": "-c id"}}
    }
    assert wrongs(page)


@pytest.mark.parametrize("strategy", [None, "default", "never", "deviated"])
def test_rollbacks_that_do_not_always_run_are_refused(strategy: str | None) -> None:
    page = good()
    page["runtime"] = {"rollbacks": {"strategy": strategy}} if strategy else {}
    assert [what for what in wrongs(page) if "runtime.rollbacks.strategy" in what]


CONTROL = [{"name": "c", "provider": {"type": "python", "module": "anything"}}]


def test_controls_are_refused() -> None:
    assert wrongs(good() | {"controls": CONTROL}) == ["controls are not allowed"]


@pytest.mark.parametrize("place", ["probe", "method", "rollback", "hypothesis"])
def test_controls_of_one_activity_are_refused_too(place: str) -> None:
    """Chaos Toolkit merges the controls of every level."""
    page = good()
    hypothesis = page["steady-state-hypothesis"]
    at = {"probe": hypothesis["probes"][0], "method": page["method"][0], "rollback": page["rollbacks"][0],
          "hypothesis": hypothesis}[place]  # fmt: skip
    at["controls"] = CONTROL
    assert wrongs(page)


@pytest.mark.parametrize("key", ["row", "blast_radius"])
def test_an_experiment_that_does_not_say_what_it_proves_and_how_far_it_reaches_is_refused(key: str) -> None:
    page = good()
    del page["extensions"][1][key]
    assert [what for what in wrongs(page) if f"`{key}`" in what]


def test_everything_wrong_is_told_at_once() -> None:
    assert len(wrongs({"method": [{"name": "a"}], "controls": CONTROL})) == 5


@pytest.mark.parametrize(
    "page",
    [None, 5, [], "x", {}, {"method": None}, {"method": ["x"]}, {"method": [{"provider": None}]}, {"method": 5},
     {"runtime": None}, {"runtime": {"rollbacks": None}}, {"runtime": "x"}, {"extensions": None},
     {"extensions": ["controlplane"]}, {"extensions": 5}, {"steady-state-hypothesis": None}, {"rollbacks": None},
     {"steady-state-hypothesis": {"probes": 5}}, {"extensions": [{"name": "controlplane", "row": ["P0"]}]}],
)  # fmt: skip
def test_a_page_of_any_other_shape_is_refused_and_never_a_crash(page: object) -> None:
    assert wrongs(page)


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
keys = st.sampled_from(
    ["method", "rollbacks", "runtime", "strategy", "extensions", "name", "provider", "steady-state-hypothesis",
     "probes", "row", "controls", "type"]
)  # fmt: skip
pages = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=15
)


@given(pages)
@settings(max_examples=200)
def test_any_page_is_read_or_refused(page: Any) -> None:
    experiment, problems = read("mine", page)
    assert (experiment is None) == bool(problems)
