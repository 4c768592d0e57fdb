"""The schema of a PostgreSQL is known and taken back as an SQLite file's is."""

from contextlib import closing

import pytest
from sqlalchemy import text

from controlplane.errors import StoreError
from controlplane.store.database import open_database
from controlplane.store.revisions import downgrade, standing
from tests.support.postgres import binaries, postgres

pytestmark = [pytest.mark.journey, pytest.mark.debian("postgresql")]

HELD = "INSERT INTO leadership (name, holder, token, expires) VALUES ('chat', 'plane-0', 1, 1e12)"
FREE = "UPDATE leadership SET expires = 0"


def test_a_server_in_use_is_refused_and_a_free_one_is_taken_back_and_up_again() -> None:
    programs = binaries()
    if programs is None:
        pytest.skip("postgresql is not installed")
    with postgres(programs) as url:
        with closing(open_database(url)) as database:
            database.run_now(lambda connection: connection.execute(text(HELD)))
        found = standing(url)
        with pytest.raises(StoreError, match="a control plane runs on this database"):
            downgrade(url, found.known[-2])
        with closing(open_database(url)) as database:
            database.run_now(lambda connection: connection.execute(text(FREE)))
        assert downgrade(url, found.known[-2])[0] == f"schema {found.revision} -> {found.known[-2]}"
        assert standing(url).revision == found.known[-2]
        with closing(open_database(url)) as database:
            holders = database.run_now(lambda c: c.execute(text("SELECT holder FROM leadership")).scalars().all())
        assert (holders, standing(url)) == (["plane-0"], found)
