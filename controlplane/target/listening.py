"""Takes the TCP port that an endpoint or a cache listens on."""

import socket

from controlplane.target.errors import TargetError


def bind(host: str, port: int) -> socket.socket:
    """Take a port; it does not listen yet.

    Raises:
        TargetError: when it is taken.
    """
    # The protocol is named because asyncio turns Nagle off only where it is; with Nagle, answers wait 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise TargetError(
            f"cannot listen on {host}:{port}", str(error.strerror), "Choose another port, or 0 for a free one."
        ) from error
    return listener
