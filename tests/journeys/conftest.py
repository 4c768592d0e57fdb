"""What the journeys share: a fleet that their tests break and give back, and a check that nothing is left behind."""

from collections.abc import Iterator

import pytest

from tests.support.processes import Fleet, nothing_left_behind


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> Iterator[None]:
    """Fail the session when a process, a port or a half-written file of its journeys is left."""
    with nothing_left_behind():
        yield


@pytest.fixture(scope="module")
def running_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run one reference fleet for all journeys of a file."""
    with Fleet(tmp_path_factory.mktemp("fleet") / "run") as fleet:
        yield fleet


@pytest.fixture
def fleet(running_fleet: Fleet) -> Iterator[Fleet]:
    """Give a whole fleet to one test, and make it whole again after."""
    running_fleet.until_back()
    yield running_fleet
    running_fleet.release()
    running_fleet.until_back()
