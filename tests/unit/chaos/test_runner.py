"""What Chaos Toolkit left behind is read for what it says, and a torn journal says nothing."""

import asyncio
import json
import math
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import psutil
import pytest

from controlplane.chaos.experiment import Walk
from controlplane.chaos.extension import inject_rolling
from controlplane.chaos.runner import (
    ROLL_WITHIN_S,
    STEP_LIMIT_S,
    ChaosToolkit,
    all_waits_s,
    limits,
    prepared,
    read_journal,
)
from controlplane.errors import ExperimentError
from tests.support.processes import gone, until

NOTHING = Walk("", deviated=False, failed_activities=())


def run(name: str, status: str = "succeeded", **more: object) -> dict[str, Any]:
    return {"activity": {"name": name}, "status": status, **more}


def journal(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "journal.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_journal_tells_status_deviation_and_what_failed(tmp_path: Path) -> None:
    walk = read_journal(
        journal(
            tmp_path,
            {
                "status": "completed",
                "deviated": True,
                "run": [run("kill"), run("P0 engages", tolerance_met=False), run("P0 idle", tolerance_met=True)],
                "rollbacks": [run("heal", "failed")],
            },
        )
    )
    assert walk == Walk("completed", deviated=True, failed_activities=("P0 engages", "heal"))


def test_a_missing_journal_says_nothing(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "absent.json") == NOTHING
    assert read_journal(tmp_path) == NOTHING


@pytest.mark.parametrize(
    "content",
    ["", '{"status": "comp', "[]", "null", "5", '{"run": 5}', '{"run": [5]}', '{"run": [{"status": "failed"}]}'],
)
def test_a_torn_journal_or_one_of_another_shape_is_never_a_completed_run(tmp_path: Path, content: str) -> None:
    assert read_journal(journal(tmp_path, content)).status == ""


def test_a_journal_that_is_not_text_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.json"
    path.write_bytes(b"\xff\xfe\x00")
    assert read_journal(path) == NOTHING


# -- a real child ------------------------------------------------------------------------------------------------------


LOOK = {"type": "python", "module": "shutil", "func": "which", "arguments": {"cmd": "ls"}}
FAIL = {"type": "python", "module": "shutil", "func": "copy", "arguments": {"src": "/absent", "dst": "/absent"}}
HANG = {"type": "process", "path": "sleep", "arguments": "3600"}


def page(tmp_path: Path, **steps: Mapping[str, object]) -> Path:
    """Write an experiment of steps; the runner itself allows any provider."""
    method = [{"name": name, "type": "action", "provider": provider} for name, provider in steps.items()]
    path = tmp_path / "story.yaml"
    path.write_text(json.dumps({"version": "1.0.0", "title": "t", "description": "d", "method": method}))
    return path


class Notes:
    """What the runner told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.first = asyncio.Event()

    async def __call__(self, text: str) -> None:
        self.texts.append(text)
        self.first.set()


def primaries(pool: str) -> tuple[str, ...]:
    return ("a", "b", "c") if pool == "primary" else ()


RUNNER = ChaosToolkit("http://127.0.0.1:1", "token", primaries)


async def test_steps_are_told_as_they_happen_and_rollbacks_always_run(tmp_path: Path) -> None:
    notes = Notes()
    story = page(tmp_path, look=LOOK, fail=FAIL)
    walk = await RUNNER.walk(story, "d1", tmp_path / "j.json", 60, notes)
    assert walk.status == "completed"
    assert walk.failed_activities == ("fail",)
    assert notes.texts[:3] == ["begins: look", "succeeded: look", "begins: fail"]
    assert notes.texts[3].startswith("failed: fail")
    run = json.loads((tmp_path / "j.experiment.json").read_text(encoding="utf-8"))
    assert run["runtime"]["rollbacks"]["strategy"] == "always"


async def test_a_step_that_hangs_is_ended_by_our_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.chaos.runner.STEP_LIMIT_S", 0.2)
    story = page(tmp_path, hang=HANG)
    with pytest.raises(ExperimentError) as error:
        await RUNNER.walk(story, "d1", tmp_path / "j.json", 60, Notes())
    assert error.value.why == "`hang` did not end in time"


async def test_a_run_that_is_called_off_ends_its_child_at_once(tmp_path: Path) -> None:
    notes = Notes()
    story = page(tmp_path, hang=HANG)
    walking = asyncio.create_task(RUNNER.walk(story, "d1", tmp_path / "j.json", 600, notes))
    await asyncio.wait_for(notes.first.wait(), 60)
    (child,) = (p for p in psutil.Process().children() if "chaostoolkit" in p.cmdline())
    (below,) = until(child.children, what="the step's own process is there")
    walking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await walking
    assert gone(child)
    until(lambda: gone(below), what="the step's own process is gone")  # Killed at once, too; nobody waited for it.


def test_a_step_may_take_what_it_says_it_waits_for_and_our_limit() -> None:
    steps = [
        {"name": "wait", "provider": {"arguments": {"within_s": 300}}, "pauses": {"before": 5, "after": 2.5}},
        {"name": "wait", "provider": {}},
        {"name": "kill"},
        "nonsense",
    ]
    found = limits({"method": steps, "steady-state-hypothesis": {"probes": [{"name": "well"}]}, "rollbacks": None})
    assert found == {"wait": STEP_LIMIT_S + 307.5, "kill": STEP_LIMIT_S, "well": STEP_LIMIT_S}


def step(name: str, func: str, **arguments: object) -> dict[str, object]:
    return {"name": name, "provider": {"func": func, "arguments": arguments}}


def test_watching_for_a_while_is_a_wait_and_one_that_rolls_may_take_as_long_as_the_run() -> None:
    found = limits({"method": [step("stays", "level_stays", for_s=120), step("roll", "inject_rolling", within_s=120)]})
    assert found == {"stays": STEP_LIMIT_S + 120, "roll": math.inf}


def test_a_run_may_take_what_all_its_steps_wait_for_and_a_roll_its_time_for_each_endpoint() -> None:
    wait = step("wait", "await_level", within_s=300) | {"pauses": {"before": 5}}
    roll = step("roll", "inject_rolling", pool="primary", within_s=120, pause_s=20) | {"pauses": {"after": 2}}
    unsaid = step("roll", "inject_rolling", pool="primary")
    assert all_waits_s({"method": [wait, wait]}, primaries) == 610
    assert all_waits_s({"method": [roll]}, primaries) == 2 + 3 * (STEP_LIMIT_S + 120 + 120 + 20)
    assert all_waits_s({"method": [unsaid]}, primaries) == 3 * (STEP_LIMIT_S + 2 * ROLL_WITHIN_S)
    assert signature(inject_rolling).parameters["within_s"].default == ROLL_WITHIN_S


def test_a_page_cannot_make_a_run_wait_for_ever() -> None:
    for said in (math.inf, math.nan, -5, "60"):
        assert 0 <= all_waits_s({"method": [step("wait", "await_healed", within_s=said)]}, primaries) <= 1e9


async def test_a_run_is_given_the_time_of_its_roll(tmp_path: Path) -> None:
    roll = {"type": "process", "path": "true", "func": "inject_rolling"}
    nobody = page(tmp_path, roll={**roll, "arguments": {"pool": "moon"}})
    with pytest.raises(ExperimentError) as error:
        await RUNNER.walk(nobody, "d1", tmp_path / "nobody.json", 0, Notes())
    assert error.value.why == "it took too long as a whole"
    three = page(tmp_path, roll={**roll, "arguments": {"pool": "primary"}})
    walk = await RUNNER.walk(three, "d1", tmp_path / "three.json", 0, Notes())
    assert walk == Walk("completed", deviated=False, failed_activities=())


def test_the_strategy_is_written_in_whatever_the_file_says() -> None:
    found = prepared(
        {"title": "t", "runtime": {"rollbacks": {"strategy": "never"}, "hypothesis": {"strategy": "default"}}}
    )
    assert found["runtime"] == {"rollbacks": {"strategy": "always"}, "hypothesis": {"strategy": "default"}}
    assert prepared({})["runtime"] == {"rollbacks": {"strategy": "always"}}
