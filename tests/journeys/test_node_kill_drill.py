"""The rehearsal as an operator runs it: `controlplane drill run node-kill` against a running control plane."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.chaos.drill import DrillPhase
from tests.support.processes import Answer, Done, Fleet, Plane, Running, command, controlplane, parse_time, parts, until

pytestmark = pytest.mark.journey


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One drill, and what else was tried while it ran."""

    fleet: Fleet
    plane: Plane
    status: int
    drill: dict[str, Any]
    """As `--json` printed it."""
    refused_by_api: Answer
    refused_by_cli: Done
    runbook_before: str
    leases: list[tuple[Any, ...]]
    """(state, injected, proven, healed, deadline) of each, as they are stored."""


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    here = tmp_path_factory.mktemp("drill")
    with Fleet(here / "run") as fleet, Plane(fleet.page) as plane:
        plane.until_ready()
        before = runbook(fleet)
        plane.until_open("node-kill")
        line = command("drill", "run", "node-kill", "--json", "--state-dir", plane.state)
        with Running(line, here / "drill.json") as run:
            plane.until_proven()
            by_api = plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
            by_cli = controlplane("drill", "run", "node-kill", "--state-dir", plane.state)
            status = run.process.wait(60)
        drill = json.loads(run.said)
        # The command ends with the outcome; what is written of the drill is written after it.
        plane.until(lambda: drill["id"] in runbook(fleet), "the runbook carries the drill")
        yield Rehearsal(
            fleet, plane, status, drill, by_api, by_cli, before,
            plane.rows("select state, injected_at, proven_at, healed_at, deadline from leases"),
        )  # fmt: skip


def runbook(fleet: Fleet) -> str:
    return (fleet.run_dir / "runbooks" / "P0-switch-to-standby.md").read_text(encoding="utf-8")


def test_the_drill_passes_and_the_command_says_so(rehearsal: Rehearsal) -> None:
    assert rehearsal.status == 0
    assert rehearsal.drill["outcome"] == "passed"
    assert rehearsal.drill["reasons"] == []
    assert rehearsal.drill["row"] == "P0"


def test_its_phases_are_timed_in_the_order_they_happen(rehearsal: Rehearsal) -> None:
    phases = rehearsal.drill["phases"]
    assert set(phases) == {phase.value for phase in DrillPhase}
    moments = [parse_time(phases[p]) for p in ("fault", "detected", "decided", "acted", "verified", "healed")]
    assert moments == sorted(moments)
    assert parse_time(phases["verified"]) < parse_time(phases["recovered"])
    assert (moments[4] - moments[0]).total_seconds() < 5


def test_every_fault_was_leased_proven_and_healed_and_no_hold_is_left(rehearsal: Rehearsal) -> None:
    assert len(rehearsal.leases) == 2
    assert {state for state, *_ in rehearsal.leases} == {"healed"}
    assert all(all(moments) for _, *moments in rehearsal.leases)
    assert rehearsal.plane.get("/api/v1/leases") == []
    assert rehearsal.fleet.holds() == []
    assert [rehearsal.fleet.node(name)["restarts"] for name in ("primary-0", "primary-1")] == [1, 1]


def test_the_service_is_back_to_normal_and_the_incident_names_its_drill(rehearsal: Rehearsal) -> None:
    assert rehearsal.plane.standing()["level"] == "none"
    (entry,) = rehearsal.plane.get("/api/v1/incidents")
    assert entry["incident"]["state"] == "resolved"
    assert entry["incident"]["drill_id"] == rehearsal.drill["id"]


def test_a_second_drill_while_one_runs_is_refused_with_every_reason(rehearsal: Rehearsal) -> None:
    answer, done = rehearsal.refused_by_api, rehearsal.refused_by_cli
    assert answer.status == 409
    assert answer.headers["content-type"] == "application/problem+json"
    reasons = answer.json["reasons"]
    assert f"drill {rehearsal.drill['id']} is still running" in reasons
    assert "2 faults are still leased" in reasons
    assert done.status == 3
    assert done.out == ""
    for said in ("error: the drill may not start", f"drill {rehearsal.drill['id']} is still running"):
        assert said in done.err
    assert "Traceback" not in done.err


def test_the_runbook_carries_the_drill_and_its_measured_times(rehearsal: Rehearsal) -> None:
    page, drill = runbook(rehearsal.fleet), rehearsal.drill
    assert page != rehearsal.runbook_before
    assert drill["id"] not in rehearsal.runbook_before
    assert drill["id"] in page
    (line,) = [line for line in page.splitlines() if line.startswith("|") and "`node-kill`" in line]
    shown = [float(cell) for cell in line.split("|") if re.fullmatch(r"\s*\d+\.\d\d\s*", cell)]
    fault, *moments = (parse_time(drill["phases"][phase]) for phase in DrillPhase)
    measured = [(moment - fault).total_seconds() for moment in moments]
    assert shown[:6] == pytest.approx(measured, abs=0.0051)


def test_what_is_on_disk_is_what_the_page_and_the_record_give(rehearsal: Rehearsal) -> None:
    def agrees() -> bool:
        return controlplane("render", "--check", rehearsal.fleet.page).status == 0

    until(agrees, 60, "everything is written")
    until(lambda: parts(rehearsal.fleet.run_dir) == [], 10, "nothing is half-written")


@pytest.mark.debian("prometheus")
def test_promtool_takes_the_alerts(rehearsal: Rehearsal) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    rules = sorted((rehearsal.fleet.run_dir / "alerts").glob("*.rules.yml"))
    assert rules
    done = subprocess.run([promtool, "check", "rules", *rules], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_journal_is_where_the_drill_says(rehearsal: Rehearsal) -> None:
    journal = json.loads(Path(rehearsal.drill["journal"]).read_text(encoding="utf-8"))
    assert journal["status"] == "completed"
    assert journal["deviated"] is False


def test_metrics_count_the_drill_and_keep_its_times(rehearsal: Rehearsal) -> None:
    metrics = rehearsal.plane.metrics()
    assert metrics.value("controlplane_drills_total", experiment="node-kill", outcome="passed") == 1
    verified = metrics.value("controlplane_drill_phase_seconds", experiment="node-kill", phase="verified")
    assert verified is not None
    assert 0 < verified < 5
    assert (metrics.value("controlplane_drill_last_passed_timestamp_seconds", experiment="node-kill") or 0) > 0


def test_the_drill_is_on_the_list(rehearsal: Rehearsal) -> None:
    done = controlplane("drill", "list", "--state-dir", rehearsal.plane.state)
    assert done.status == 0
    assert rehearsal.drill["id"] in done.out
    assert "passed" in done.out


def test_an_unknown_experiment_is_wrong_usage_and_the_known_ones_are_listed(rehearsal: Rehearsal) -> None:
    done = controlplane("drill", "run", "node-kil", "--state-dir", rehearsal.plane.state)
    assert done.status == 2
    assert "error: no experiment `node-kil`" in done.err
    assert "node-kill" in done.err.split("why:")[1]
    assert "fix:" in done.err


@pytest.mark.parametrize("name", ["../node-kill", "node_kill", "", "x" * 65, "node-kill.yaml"])
def test_a_name_that_cannot_be_an_experiments_is_wrong_usage(rehearsal: Rehearsal, name: str) -> None:
    done = controlplane("drill", "run", name, "--state-dir", rehearsal.plane.state)
    assert done.status == 2
    assert "error:" in done.err
    assert "Traceback" not in done.err


def test_without_the_operators_token_nothing_is_started(rehearsal: Rehearsal) -> None:
    before = len(rehearsal.plane.get("/api/v1/drills"))
    for token in ("", "wrong"):
        answer = rehearsal.plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"}, token=token)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    done = controlplane(
        "drill", "run", "node-kill", "--state-dir", rehearsal.plane.state, env={"CONTROLPLANE_TOKEN": "wrong"}
    )
    assert done.status == 5
    assert "token" in done.err
    assert len(rehearsal.plane.get("/api/v1/drills")) == before


def test_status_shows_the_fleet_at_rest(rehearsal: Rehearsal) -> None:
    done = controlplane("status", "--state-dir", rehearsal.plane.state)
    assert done.status == 0
    assert "level none" in done.out
    for pool in ("primary", "standby", "base", "gateway"):
        assert pool in done.out


def test_healing_when_nothing_is_leased_does_nothing(rehearsal: Rehearsal) -> None:
    done = controlplane("heal", rehearsal.fleet.page)
    assert done.status == 0
    assert done.out == "0 faults leased\n"
