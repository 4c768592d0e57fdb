"""Two control planes on one database: one acts, the other watches and takes over when the first one dies."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.store.database import sqlite_url
from tests.support.processes import Fleet, Load, Plane, until

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("two") / "run") as running:
        yield running
        running.release()


def in_charge(plane: Plane) -> bool:
    return bool(plane.ask("/readyz").json["in_charge"])


def test_the_second_one_watches_and_takes_over_an_engaged_row_when_the_first_one_is_killed(
    fleet: Fleet, tmp_path: Path
) -> None:
    database = sqlite_url(tmp_path / "shared.db")
    with (
        Load(fleet.gateway, tmp_path / "requests.jsonl", 50) as load,
        Plane(fleet.page, state=tmp_path / "first", database=database) as first,
    ):
        first.until_ready()
        until(lambda: in_charge(first), what="the first one is in charge")
        with Plane(fleet.page, state=tmp_path / "second", database=database) as second:
            second.until_ready()
            assert not in_charge(second)
            assert second.metrics().value("controlplane_leader") == 0
            refused = second.ask("/api/v1/drills", "POST", {"experiment": "node-kill"})
            assert (refused.status, "another control plane leads" in refused.text) == (409, True)
            fleet.kill_nodes(held_for_s=60)
            first.until_level("P0")
            second.until_level("P0")
            assert second.metrics().value("controlplane_switches_total", row="P0", outcome="verified") == 0
            first.kill()
            second.until(lambda: in_charge(second), "the second one takes over", 30)
            (receipt,) = second.get("/api/v1/receipts")
            assert (receipt["state"], receipt["id"].endswith("/P0/1")) == ("verified", True)
            fleet.release()
            second.until_level("none")
            until(lambda: second.get("/api/v1/receipts")[0]["state"] == "reverted", 10, "the receipt is reverted")
            assert len(second.get("/api/v1/receipts")) == 1
            assert second.metrics().value("controlplane_leader_term") == 2
            assert second.stop() == 0
    assert [r for r in load.requests() if r.status != 200 or r.error] == []
