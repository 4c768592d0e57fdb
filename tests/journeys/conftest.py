"""What the journeys share: a check that they leave nothing behind on this machine."""

from collections.abc import Iterator

import pytest

from tests.support.processes import nothing_left_behind


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> Iterator[None]:
    """Fail the session when a process, a port or a half-written file of its journeys is left."""
    with nothing_left_behind():
        yield
