"""Drills that go wrong on a real fleet: a guard breaks, somebody halts, two control planes share a date."""

import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    PRIMARIES,
    Fleet,
    Plane,
    Running,
    ask,
    controlplane,
    free_port,
    listens,
    parse_time,
    quick_experiments,
    seconds_between,
    until,
)

pytestmark = pytest.mark.journey

ENDED = {"passed", "failed", "invalid", "aborted"}


def page_with(fleet: Fleet, drills: str) -> Path:
    """Write the fleet's page with a `drills:` section of a test's own, beside it."""
    page = fleet.run_dir / "drills-under-test.yaml"
    page.write_text(fleet.page.read_text(encoding="utf-8") + drills, encoding="utf-8")
    return page


def until_ended(plane: Plane, drill_id: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        drill: dict[str, Any] = plane.get(f"/api/v1/drills/{drill_id}")
        return drill if drill["outcome"] in ENDED else None

    found = plane.until(ended, "the drill has ended", 60)
    assert found is not None
    return found


def start(plane: Plane) -> str:
    """Start the drill as soon as it may start, and wait until its faults are in force; return its id."""
    plane.until_open("node-kill")
    answer = plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
    assert answer.status == 202, answer.text
    plane.until_proven()
    return str(answer.json["id"])


def test_a_guard_that_does_not_hold_lets_no_drill_start(fleet: Fleet, tmp_path: Path) -> None:
    page = page_with(fleet, "drills:\n  monthly: { guards: { request_rate: { below: 1000000, for: 1h } } }\n")
    with Plane(page, quick_experiments(tmp_path / "experiments", "90s"), tmp_path / "state") as plane:
        plane.until_ready()
        refused = plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
        assert refused.status == 409
        assert any(reason.startswith("request_rate is ") for reason in refused.json["reasons"])
        tried = controlplane("drill", "run", "node-kill", "--dry-run", "--state-dir", plane.state)
        assert tried.status == 1
        assert "breaks primary-0, primary-1 of pool primary" in tried.out
        assert "closed: request_rate is " in tried.out
        assert plane.rows("select count(*) from leases") == plane.rows("select count(*) from drills") == [(0,)]


def test_a_guard_that_breaks_ends_every_fault_and_aborts_the_drill(fleet: Fleet, tmp_path: Path) -> None:
    page = page_with(fleet, "drills:\n  monthly: { guards: { availability: { below: 90%, for: 500ms } } }\n")
    others = ("standby-0", "base-0")
    with Plane(page, quick_experiments(tmp_path / "experiments", "90s"), tmp_path / "state") as plane:
        plane.until_ready()
        drill_id = start(plane)
        fleet.kill_nodes(others, held_for_s=60)
        ended = until_ended(plane, drill_id)
        assert ended["outcome"] == "aborted"
        assert ended["reasons"][0].startswith("guard availability: availability is ")
        events = plane.get(f"/api/v1/drills/{drill_id}/events")
        kinds = [event["kind"] for event in events]
        assert kinds.index("fault") < kinds.index("guard") < kinds.index("heal", kinds.index("guard"))
        assert any(e["kind"] == "step" and e["text"].startswith("begins: kill every node") for e in events)
        fleet.until_back()
        plane.until(lambda: plane.get("/api/v1/leases") == [], "every lease is closed", 20)
        deadlines = [parse_time(d) for (d,) in plane.rows("select deadline from leases")]
        healed = [parse_time(h) for (h,) in plane.rows("select healed_at from leases")]
        assert max(healed) < min(deadlines)
        assert not list((fleet.run_dir / "nodes").glob("node-primary-*.hold"))
    fleet.release()
    fleet.until_back((*PRIMARIES, *others))


def test_a_halt_ends_the_drill_blocks_the_next_and_outlives_a_restart(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    experiments = quick_experiments(tmp_path / "experiments", "90s")
    with Plane(fleet.page, experiments, state) as first:
        first.until_ready()
        drill_id = start(first)
        done = controlplane("halt", "--why", "smoke", "--state-dir", state)
        assert done.status == 0, done.err
        assert "drills are halted: smoke" in done.out
        assert "2 faults leased" in done.out
        assert fleet.holds() == []
        ended = until_ended(first, drill_id)
        assert ended["outcome"] == "aborted"
        assert ended["reasons"][0].endswith(": smoke")
        first.until_level("none")
        first.kill()
    with Plane(fleet.page, experiments, state) as second:
        second.until_ready()
        refused = second.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
        assert refused.status == 409
        assert "drills are halted: smoke" in refused.json["reasons"]
        assert second.get("/api/v1/halt")["halt"]["why"] == "smoke"
        assert "drills are halted" not in controlplane("resume", "--state-dir", state).err
        assert second.get("/api/v1/halt")["halt"] is None
        assert "drills are halted: smoke" not in second.get("/api/v1/experiments/node-kill/preview")["refused"]
        assert controlplane("resume", "--state-dir", state).out == "drills were not halted\n"


@pytest.mark.timeout(240)
def test_two_control_planes_on_one_database_run_a_date_once(fleet: Fleet, tmp_path: Path) -> None:
    due = datetime.now(UTC).replace(second=0, microsecond=0)
    at = f"{{ day: {due.day}, hour: {due.hour}, minute: {due.minute}, timezone: UTC }}"
    leads = page_with(fleet, f"drills:\n  monthly: {{ at: {at} }}\n")
    watches = fleet.run_dir / "drills-watching.yaml"
    watches.write_text(leads.read_text(encoding="utf-8").replace("degradation:", "degradation:\n  mode: observe", 1))
    experiments = quick_experiments(tmp_path / "experiments", "8s")
    one, other = tmp_path / "one", tmp_path / "other"
    other.mkdir()
    (other / "controlplane.db").symlink_to(one / "controlplane.db")
    with Plane(leads, experiments, one) as first, Plane(watches, experiments, other) as second:
        for plane in (first, second):
            plane.until_ready()
        slot = f"monthly/{due:%Y-%m-%dT%H:%M%z}"
        began = time.monotonic()
        with closing(sqlite3.connect(one / "controlplane.db", timeout=10)) as connection, connection:
            moment = due.isoformat(timespec="microseconds")
            connection.execute(
                "insert into drill_slots values (?, ?, ?, 'planned', '[]', 0, ?)", ("node-kill", slot, moment, moment)
            )

        def ended() -> list[tuple[Any, ...]]:
            return first.rows("select slot, outcome, requested_by from drills where outcome <> 'running'")

        first.until(ended, "the date has been run", 90)
        # Both have looked at the date by now: each looks every 15 s.
        until(lambda: time.monotonic() - began > 31, 60, "both have looked twice")
        rows = first.rows("select slot, outcome, requested_by from drills")
        assert len(rows) == 1
        assert rows[0][0] == slot
        assert rows[0][2] == "schedule monthly"
        assert (slot, "started") in first.rows("select slot, state from drill_slots")
        assert fleet.holds() == []


def test_a_report_lies_beside_the_journal(fleet: Fleet, tmp_path: Path) -> None:
    with Plane(fleet.page, quick_experiments(tmp_path / "experiments", "8s"), tmp_path / "state") as plane:
        plane.until_ready()
        drill_id = start(plane)
        ended = until_ended(plane, drill_id)
        assert ended["outcome"] == "passed", ended["reasons"]
        done = controlplane("drill", "report", drill_id, "--state-dir", plane.state)
        assert done.status == 0, done.err
        assert done.out.startswith("# Drill `node-kill` passed")
        journal = Path(ended["journal"])
        plane.until(journal.with_suffix(".html").exists, "the page is written")
        assert "<svg" in journal.with_suffix(".html").read_text(encoding="utf-8")
        assert journal.with_suffix(".md").exists()
        run = journal.with_suffix(".experiment.json").read_text(encoding="utf-8")
        assert '"strategy": "always"' in run
        healed = seconds_between(ended["phases"]["fault"], ended["phases"]["healed"])
        assert healed >= 2.0
        assert ended["users"]["during"]["requests"] >= 0


@pytest.mark.debian("prometheus-alertmanager")
def test_alerts_are_silenced_while_faults_last_and_the_contract_is_asked_of_alertmanager(
    fleet: Fleet, tmp_path: Path
) -> None:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    (tmp_path / "am.yml").write_text("route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n", encoding="utf-8")
    port = free_port()
    line = [
        program, f"--config.file={tmp_path / 'am.yml'}", f"--storage.path={tmp_path}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    page = page_with(fleet, f"alertmanager: {url}\n")
    with (
        Running(line, tmp_path / "am.log") as server,
        Plane(page, quick_experiments(tmp_path / "experiments", "12s"), tmp_path / "state") as plane,
    ):
        server.until(lambda: listens(port), "Alertmanager listens")
        plane.until_ready()
        drill_id = start(plane)
        labels = {"alertname": "DegradationEngaged", "service": "reference"}
        now = datetime.now(UTC).isoformat()
        assert ask(f"{url}/api/v2/alerts", "POST", [{"labels": labels, "startsAt": now}]).status == 200

        def silenced() -> bool:
            found = [a for a in ask(f"{url}/api/v2/alerts").json if a["labels"] == labels]
            return bool(found and found[0]["status"]["silencedBy"])

        plane.until(silenced, "the expected alert is tagged", 10)
        (silence,) = [s for s in ask(f"{url}/api/v2/silences").json if s["status"]["state"] == "active"]
        assert drill_id in silence["comment"]
        deadlines = [parse_time(d) for (d,) in plane.rows("select deadline from leases")]
        assert abs((parse_time(silence["endsAt"]) - max(deadlines)).total_seconds()) < 1
        ended = until_ended(plane, drill_id)
        assert ended["outcome"] == "passed", ended["reasons"]
        assert not silenced()
        texts = [e["text"] for e in plane.get(f"/api/v1/drills/{drill_id}/events") if e["kind"] == "alert"]
        assert any(text.startswith("DegradationEngaged fires since") for text in texts)
        assert "the silence is lifted" in texts

        again = until_ended(plane, start(plane))
        assert again["outcome"] == "failed"
        assert again["reasons"] == ["expected alert DegradationEngaged did not fire"]
