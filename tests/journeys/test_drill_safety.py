"""Drills that go wrong on a real fleet: a guard breaks, somebody halts, two control planes share a date."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    Fleet,
    Plane,
    quick_experiments,
)

pytestmark = pytest.mark.journey

ENDED = {"passed", "failed", "invalid", "aborted"}


@pytest.fixture(scope="module")
def running_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("safety") / "run") as fleet:
        yield fleet


@pytest.fixture
def fleet(running_fleet: Fleet) -> Iterator[Fleet]:
    running_fleet.until_back()
    yield running_fleet
    running_fleet.release()
    running_fleet.until_back()


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


def test_a_guard_that_breaks_heals_everything_and_aborts_the_drill(fleet: Fleet, tmp_path: Path) -> None:
    page = page_with(fleet, "drills:\n  monthly: { guards: { endpoints_down: { above: 50%, for: 200ms } } }\n")
    # No gateway evidence says that endpoints are down: the guard is one of availability, made to break by the fault.
    page.write_text(
        page.read_text().replace(
            "endpoints_down: { above: 50%, for: 200ms }", "request_rate: { below: 1000000, for: 1s }"
        )
    )
    with Plane(page, quick_experiments(tmp_path / "experiments", "90s"), tmp_path / "state") as plane:
        plane.until_ready()
        refused = plane.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
        assert refused.status == 409
        assert any("request_rate" in reason for reason in refused.json["reasons"])
        assert plane.rows("select count(*) from leases") == [(0,)]
