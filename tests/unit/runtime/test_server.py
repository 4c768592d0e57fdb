"""Where a control plane listens is taken before anything else is touched, or refused with the way out."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.errors import ControlplaneError
from controlplane.runtime.server import listening
from controlplane.settings import ServeSettings


@pytest.fixture
def rival() -> Iterator[socket.socket]:
    """Another control plane's socket: bound, and about to listen."""
    with closing(socket.socket()) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        yield bound


def test_of_two_that_take_one_address_at_once_the_later_is_refused_with_the_way_out(
    rival: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(socket.socket):
        def listen(self, backlog: int = 128, /) -> None:
            rival.listen()
            super().listen(backlog)

    port = rival.getsockname()[1]
    monkeypatch.setattr(socket, "socket", Later)
    with (
        pytest.raises(ControlplaneError, match=f"cannot listen on 127.0.0.1:{port}") as refused,
        listening(ServeSettings(tmp_path, tmp_path, port=port)),
    ):
        pass
    assert "choose another port" in refused.value.fix
