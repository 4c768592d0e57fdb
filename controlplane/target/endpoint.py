"""What an endpoint's process runs, forked from the fork server, which preloads this module and torch.

The fork server ends when its fleet does, also on SIGKILL. It then removes the folder of its own socket, which the
dead fleet can no longer do; ``SOCKET_DIR_VARIABLE`` names it. Forked endpoints leave by ``os._exit`` and skip this.
"""

import atexit
import multiprocessing.forkserver
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

from controlplane.target.errors import TargetError
from controlplane.target.lifeline import die_with_parent
from controlplane.target.server import serve_endpoint
from controlplane.target.spec import EndpointSpec

SOCKET_DIR_VARIABLE = "CONTROLPLANE_FORKSERVER_DIR"


def _leave(socket_dir: str) -> None:
    """End the fork server: remove its socket's folder, and skip torch's half second of tidying up."""
    shutil.rmtree(socket_dir, ignore_errors=True)
    os._exit(0)


if SOCKET_DIR_VARIABLE in os.environ:
    atexit.register(_leave, os.environ[SOCKET_DIR_VARIABLE])


def run(spec: EndpointSpec, log_path: Path) -> None:
    """Serve one endpoint in a process group of its own, logging to ``log_path``; never returns."""
    parent = os.getppid()
    os.setsid()
    die_with_parent(parent)
    _let_go_of_the_fork_server()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    try:
        code = serve_endpoint(spec)
    except TargetError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    sys.exit(code)


def _let_go_of_the_fork_server() -> None:
    """Close the pipe by which multiprocessing's children keep their fork server alive after the fleet has died.

    The fork server must end with the fleet, and this endpoint with the fork server; holding the pipe would keep all of
    them running for ever after a SIGKILL of the fleet. Python has no public name for it.
    """
    pipe = getattr(multiprocessing.forkserver._forkserver, "_forkserver_alive_fd", None)  # noqa: SLF001
    if pipe is not None:
        with suppress(OSError):
            os.close(pipe)
