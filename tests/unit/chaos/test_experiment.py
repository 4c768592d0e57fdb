"""An experiment may ask the control plane for faults, and for nothing else in the world."""

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaoslib.experiment import ensure_experiment_is_valid
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.chaos import extension
from controlplane.chaos.experiment import EXTENSION_FUNCTIONS, Experiment, PlannedFault, overreach, read
from controlplane.chaos.fault import FaultKind

SHIPPED = sorted((Path(__file__).parents[3] / "experiments").glob("*.yaml"))
PYTHON = {"type": "python", "module": "controlplane.chaos.extension"}
FAULT = {"kind": "node-kill", "pool": "primary"}


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
            "method": [
                {"type": "action", "name": "a", "provider": {**PYTHON, "func": "inject", "arguments": {**FAULT}}}
            ],
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
    assert experiment.row in ("none", "P0", "P1", "P2")
    assert experiment.faults
    assert "FaultOverstayed" in experiment.forbidden_alerts
    assert ("DegradationEngaged" in experiment.expected_alerts) == (experiment.row != "none")
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


def test_what_an_experiment_may_call_is_what_the_extension_exports_with_its_arguments() -> None:
    exported = {name: set(getattr(extension, name).__annotations__) - {"return"} for name in extension.__all__}
    assert {name: set(arguments) for name, arguments in EXTENSION_FUNCTIONS.items()} == exported


def test_every_kind_of_fault_has_an_experiment() -> None:
    found = {fault.kind for path in SHIPPED for fault in (read(path.stem, shipped(path))[0] or none()).faults}
    assert found == set(FaultKind)


def none() -> Experiment:
    pytest.fail("a shipped experiment is refused")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_a_shipped_experiment_reaches_no_further_than_a_fleet_of_two_and_a_standby_bears(path: Path) -> None:
    experiment = read(path.stem, shipped(path))[0] or none()
    assert overreach(experiment, {"primary": 2, "standby": 1, "base": 1}) == ()


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


def breaking(**arguments: object) -> dict[str, Any]:
    page = good()
    page["method"][0]["provider"]["arguments"] = {**FAULT, **arguments}
    return page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "meteor"}, "there is no fault `meteor`"),
        ({"kind": ["node-kill"]}, "there is no fault"),
        ({"pool": ""}, "names no pool"),
        ({"down_for": "2h"}, "may not last 2:00:00"),
        ({"down_for": "1h1s"}, "may not last"),
        ({"down_for": "0s"}, "may not last 0:00:00"),
        ({"down_for": "${lease}"}, "`down_for` is"),
        ({"down_for": 8}, "`down_for` is 8"),
        ({"down_for": "9" * 400 + "h"}, "may not last"),
        ({"endpoints": 0}, "`endpoints` is 0"),
        ({"endpoints": "0%"}, "`endpoints` is"),
        ({"endpoints": "150%"}, "`endpoints` is"),
        ({"endpoints": True}, "`endpoints` is True"),
        ({"endpoints": 0.5}, "`endpoints` is 0.5"),
        ({"parameters": {"mode": "drop"}}, "node-kill has no parameter `mode`"),
        ({"parameters": "drop"}, "`parameters` is 'drop'"),
        ({"kind": "network-partition", "parameters": {"direction": "up"}}, "parameter `direction`"),
        ({"kind": "gpu-saturation", "parameters": {"duty": 1.5}}, "parameter `duty`"),
        ({"kind": "gpu-saturation", "parameters": {"duty": float("nan")}}, "parameter `duty`"),
        ({"kind": "gpu-saturation", "parameters": {"duty": True}}, "parameter `duty`"),
        ({"force": True}, "inject has no argument `force`"),
    ],
)  # fmt: skip
def test_a_fault_that_could_not_be_injected_as_it_is_written_is_refused(
    arguments: dict[str, object], said: str
) -> None:
    (what,) = wrongs(breaking(**arguments))
    assert said in what


def test_a_fault_is_read_with_what_it_is_not_told() -> None:
    experiment, _ = read("mine", breaking(kind="network-partition", endpoints="50%", down_for="1m30s"))
    assert experiment is not None
    assert experiment.faults == (
        PlannedFault(
            FaultKind.NETWORK_PARTITION, "primary", 0.5, 0, timedelta(seconds=90),
            {"mode": "drop", "direction": "both", "peer": "everybody", "delay_ms": 200},
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ({"endpoints": "100%"}, 4), ({"endpoints": "50%"}, 2), ({"endpoints": "1%"}, 1), ({"endpoints": 3}, 3),
        ({"endpoints": 9}, 4),
    ],
)  # fmt: skip
def test_a_fault_tells_how_many_it_breaks_at_once(fault: dict[str, object], broken: int) -> None:
    experiment, _ = read("mine", breaking(**fault))
    assert experiment is not None
    assert experiment.faults[0].broken_at_once(4) == broken


def test_one_after_another_is_one_at_once() -> None:
    page = breaking()
    page["method"][0]["provider"]["func"] = "inject_rolling"
    experiment, _ = read("mine", page)
    assert experiment is not None
    assert [experiment.faults[0].broken_at_once(n) for n in (0, 1, 4)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("fault", "pools", "said"),
    [
        ({}, {"primary": 2}, "100 % of the service's only pool, primary"),
        ({}, {"primary": 2, "standby": 0}, "only pool"),
        ({"endpoints": "60%"}, {"primary": 1}, "only pool"),
        ({"endpoints": 2}, {"primary": 2}, "only pool"),
        ({}, {"standby": 1}, "cannot find its target: pool primary"),
        ({}, {"primary": 0, "standby": 1}, "cannot find its target: pool primary"),
        ({"endpoints": 3}, {"primary": 2, "standby": 1}, "cannot find its target"),
        ({"endpoints": "50%"}, {"primary": 2}, None),
        ({}, {"primary": 2, "standby": 1}, None),
        ({"pool": "controlplane", "kind": "disk-full"}, {"primary": 1}, None),
    ],
)  # fmt: skip
def test_an_experiment_may_not_break_all_there_is_nor_what_is_not_there(
    fault: dict[str, object], pools: dict[str, int], said: str | None
) -> None:
    experiment, _ = read("mine", breaking(**fault))
    assert experiment is not None
    problems = overreach(experiment, pools)
    assert [problem for problem in problems if not problem.why or not problem.fix] == []
    assert (said is None) == (problems == ())
    assert said is None or said in problems[0].what


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"rows": "P0"}, "unknown key `rows`"),
        ({"row": "P0,P2"}, "there is no row `P0,P2`"),
        ({"row": "None"}, "there is no row `None`"),
        ({"expected_alerts": "EndpointDown"}, "`expected_alerts` is no list of alerts"),
        ({"forbidden_alerts": ["end point"]}, "`forbidden_alerts` is no list of alerts"),
        ({"expected_alerts": ["A"], "forbidden_alerts": ["A"]}, "named twice: A"),
    ],
)
def test_what_is_said_to_us_must_mean_something(block: dict[str, object], said: str) -> None:
    page = good()
    page["extensions"][1] |= block
    (what,) = wrongs(page)
    assert said in what


def test_alerts_are_read() -> None:
    page = good()
    page["extensions"][1] |= {"row": "none", "expected_alerts": ["A", "B"], "forbidden_alerts": ["C"]}
    experiment, _ = read("mine", page)
    assert experiment is not None
    assert (experiment.row, experiment.expected_alerts, experiment.forbidden_alerts) == ("none", ("A", "B"), ("C",))


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
