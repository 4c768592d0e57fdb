"""What is rendered stays what it was, byte for byte; `UPDATE_GOLDEN=1` writes the files anew."""

import os
import shutil
from pathlib import Path

import pytest

from controlplane.chaos.drill import Drill
from controlplane.render.artefacts import render
from tests.golden.cases import DRILLS, HERE, NAMES, policy

EVIDENCE: dict[str, tuple[Drill, ...]] = {"minimal": (), "full": DRILLS, "kubernetes": ()}


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_renders_to_its_golden_files(name: str) -> None:
    folder = HERE / "rendered" / name
    rendered = render(policy(name), EVIDENCE[name], f"{name}.yaml")
    if os.environ.get("UPDATE_GOLDEN") == "1":
        _write(folder, rendered)
    stored = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert sorted(stored) == sorted(rendered)
    for path, text in rendered.items():
        assert stored[path] == text.encode(), (
            f"{path} changed: look at it, then run UPDATE_GOLDEN=1 pytest tests/golden"
        )


def _write(folder: Path, rendered: dict[str, str] | object) -> None:
    assert isinstance(rendered, dict)
    shutil.rmtree(folder, ignore_errors=True)
    for path, text in rendered.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
