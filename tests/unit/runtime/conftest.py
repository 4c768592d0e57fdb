"""What tests of the running parts share."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.store.database import Database, open_database, sqlite_url


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Open an embedded database, as a control plane does."""
    with closing(open_database(sqlite_url(tmp_path / "a.db"))) as opened:
        yield opened
