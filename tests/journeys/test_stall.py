"""A control plane that stood still for longer than its lease finds everything as it left it: nobody else was there."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Fleet, Plane, quick_experiments, until

pytestmark = pytest.mark.journey

STOOD_STILL_S = 6.0
"""Longer than a lease holds."""
AFTERWARDS_S = 5.0
"""More than two of its rounds through what is in force."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("stall") / "run") as running:
        yield running
        running.release()


def stand_still(plane: Plane) -> None:
    """Stop the whole process for a while, as a starved machine or a live migration does."""
    plane.process.send_signal(signal.SIGSTOP)
    time.sleep(STOOD_STILL_S)
    plane.process.send_signal(signal.SIGCONT)


def receipts(plane: Plane) -> list[tuple[str, str]]:
    """Return the row and the state of every receipt, the newest first."""
    found: list[dict[str, Any]] = plane.get("/api/v1/receipts")
    return [(receipt["level"], receipt["state"]) for receipt in found]


def test_a_row_in_force_stays_in_force_and_goes_home_when_it_may(fleet: Fleet, tmp_path: Path) -> None:
    with Plane(fleet.page, state=tmp_path / "state") as plane:
        plane.until_ready()
        fleet.kill_nodes(held_for_s=90)
        plane.until_level("P0")
        stand_still(plane)
        time.sleep(AFTERWARDS_S)
        assert receipts(plane) == [("P0", "verified")]
        assert plane.standing()["level"] == "P0"
        assert plane.metrics().value("controlplane_leader_term") == 1
        fleet.release()
        plane.until_level("none", 60)
        until(lambda: receipts(plane) == [("P0", "reverted")], what="its receipt is closed")


def test_a_drill_goes_on(fleet: Fleet, tmp_path: Path) -> None:
    fleet.until_back()
    with Plane(fleet.page, quick_experiments(tmp_path / "experiments", "20s"), tmp_path / "state") as plane:
        plane.until_ready()
        started = plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
        assert started.status == 202, started.text
        plane.until_proven()
        plane.until_level("P0")
        stand_still(plane)

        def ended() -> dict[str, Any]:
            found: dict[str, Any] = plane.get(f"/api/v1/drills/{started.json['id']}")
            return found if found["outcome"] != "running" else {}

        drill = plane.until(ended, "the drill ends", 90)
        assert (drill["outcome"], drill["reasons"]) == ("passed", [])
        assert receipts(plane)[0] == ("P0", "reverted")
