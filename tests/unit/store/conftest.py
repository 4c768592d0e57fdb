"""The databases that the store is tested on: SQLite, and a real PostgreSQL, by the same test bodies."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.store.database import Database, open_database, sqlite_url
from tests.support.postgres import TEMPLATE, Server, server_or_skip

KINDS = [
    "sqlite",
    pytest.param("postgresql", marks=[pytest.mark.journey, pytest.mark.debian("postgresql")]),
]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """Run one server for the whole session; each test has a database of its own on it."""
    with server_or_skip() as running:
        running.make_template()
        yield running


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a database of each kind with nothing in it; its schema is there, or is made at the first open."""
    yield from _database(request, tmp_path, TEMPLATE)


@pytest.fixture(params=KINDS)
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of a database of each kind without our schema."""
    yield from _database(request, tmp_path, "template1")


def _database(request: pytest.FixtureRequest, folder: Path, template: str) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_url(folder / "controlplane.db")
        return
    running: Server = request.getfixturevalue("postgres_server")
    made = running.fresh(template)
    yield made
    running.drop(made)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Open it, as a control plane does."""
    with closing(open_database(url)) as opened:
        yield opened


@pytest.fixture
def other(url: str, database: Database) -> Iterator[Database]:
    """Open it once more, as another control plane does."""
    assert database
    with closing(open_database(url)) as opened:
        yield opened
