"""The control plane itself is rolled back and upgraded while a row is engaged: no user notices, nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.store.database import open_database, sqlite_url
from controlplane.store.revisions import standing
from tests.support.processes import Fleet, Load, Plane, controlplane, until

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("upgrade") / "run") as running:
        yield running
        running.release()


def test_an_engaged_row_outlives_a_rollback_of_the_schema_and_the_upgrade_after_it(
    fleet: Fleet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    url = sqlite_url(state / "controlplane.db")
    with Load(fleet.gateway, tmp_path / "requests.jsonl", 20) as load:
        with Plane(fleet.page, state=state) as plane:
            plane.until_ready()
            fleet.kill_nodes(held_for_s=120)
            plane.until_level("P0")
            newest = standing(url).revision
            refused = controlplane("database", "downgrade", "--to", older(url), "--state-dir", state)
            assert (refused.status, "another control plane" in refused.err) == (1, True)
            assert plane.stop() == 0
        done = controlplane("database", "downgrade", "--to", older(url), "--state-dir", state)
        assert done.status == 0, done.err
        assert standing(url).revision == older(url, newest)
        with Plane(fleet.page, state=state) as plane:  # The upgrade: whoever starts brings the schema up to date.
            plane.until_level("P0")
            assert standing(url).revision == newest
            (receipt,) = plane.get("/api/v1/receipts")
            assert (receipt["state"], receipt["id"].endswith("/P0/1")) == ("verified", True)
            fleet.release()
            plane.until_level("none")
            until(lambda: plane.get("/api/v1/receipts")[0]["state"] == "reverted", 10, "the receipt is reverted")
            assert len(plane.get("/api/v1/receipts")) == 1
            assert plane.stop() == 0
    assert [r for r in load.requests() if r.status != 200 or r.error] == []


def test_a_server_refuses_a_database_of_a_newer_version_with_the_way_out(fleet: Fleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    database = open_database(sqlite_url(state / "controlplane.db"))
    database.run_now(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    database.close()
    refused = controlplane("serve", fleet.page, "--port", "0", "--state-dir", state)
    assert refused.status == 1
    assert "is of another version" in refused.err
    assert "controlplane database downgrade" in refused.err
    assert "Traceback" not in refused.err


def older(url: str, newest: str = "") -> str:
    """Return the revision before the database's own, or before another."""
    found = standing(url)
    return found.known[found.known.index(newest or found.revision) - 1]
