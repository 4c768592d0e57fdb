"""`controlplane check` and `render` refuse a page whose alerts would come later than what its rows promise."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from controlplane.cli import app
from controlplane.errors import UsageError

PAGE = """service: tiny
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.1.1:8000"] } }
    standby: { endpoints: { static: ["http://10.0.2.1:8000"] } }
"""
LATE = PAGE + "publish: { scrape: 1m, evaluation: 1m, group_wait: 4m }\n"


def page(folder: Path, text: str) -> str:
    path = folder / "controlplane.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_way_of_every_alert_is_printed_on_demand(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "--detection", page(tmp_path, PAGE)])
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ErrorRateBreach ")]
    assert line.split() == ["ErrorRateBreach", "P0", "5s", "35s", "5s", "5s", "5s", "1s", "56s", "5m"]


def test_a_page_that_cannot_keep_its_promise_shows_where_before_it_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", "--detection", page(tmp_path, LATE)])
    assert isinstance(done.exception, UsageError)
    assert "TOO LATE" in done.stdout


@pytest.mark.parametrize("command", ["check", "render"])
def test_it_is_refused_and_nothing_is_written(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [command, page(tmp_path, LATE)])
    assert isinstance(done.exception, UsageError)
    assert "group_wait 4m" in done.exception.why
    assert done.exception.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["controlplane.yaml"]
