"""The unit for plain hosts is what systemd itself calls sound and closed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = [
    pytest.mark.debian("systemd"),
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed"),
]

UNIT = ROOT / "deploy" / "systemd" / "controlplane.service"
OPEN_AT_MOST = 2.0
"""Of 10, as `systemd-analyze security` counts; a unit without any of it has 9.6."""


def analyze(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_unit_is_sound(tmp_path: Path) -> None:
    text = UNIT.read_text(encoding="utf-8").replace("/opt/controlplane/bin/controlplane", "/bin/true")
    (tmp_path / UNIT.name).write_text(text, encoding="utf-8")  # The program need not be installed here.
    assert analyze("verify", tmp_path / UNIT.name) == (0, "")


def test_the_unit_is_closed(tmp_path: Path) -> None:
    (tmp_path / UNIT.name).write_bytes(UNIT.read_bytes())
    status, told = analyze("security", "--offline=true", f"--threshold={OPEN_AT_MOST * 10:.0f}", tmp_path / UNIT.name)
    assert status == 0, told
