"""What Chaos Toolkit left behind is read for what it says, and a torn journal says nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.chaos.experiment import Walk
from controlplane.chaos.runner import read_journal

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
