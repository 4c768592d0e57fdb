"""`python -m controlplane.chaos.keepers`: start one keeper from the order on standard input, and leave it alone.

Ends with 0 once the fault is in force, else with 1 and the reason on standard error. The keeper itself has then neither
a parent nor a terminal: nobody has to wait for it, and nobody takes it along when he dies.
"""

import os
import sys

from controlplane.chaos.keepers.keeper import KeeperError, Order, keep, read_order
from controlplane.chaos.keepers.table import WORKS

_READY = b"ready"


def main() -> int:
    """Start the keeper and wait until it is ready, or has given up."""
    order = read_order(sys.stdin.read())
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os._exit(_be_keeper(order, writing))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    if said == _READY:
        return 0
    sys.stderr.write(said.decode(errors="replace") or "the keeper died before the fault was in force")
    return 1


def _be_keeper(order: Order, writing: int) -> int:
    """Do the work in the forked process; what goes wrong is told through the pipe while somebody listens."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)

    def ready() -> None:
        os.write(writing, _READY)
        os.close(writing)

    try:
        keep(order, WORKS[order.work](order.settings), ready)
    except KeeperError as error:
        os.write(writing, str(error).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
