"""What an endpoint's process runs, forked from the fork server, which preloads this module and torch.

The fork server ends when its fleet does, also on SIGKILL. It then removes the folder of its own socket, which the
dead fleet can no longer do; ``SOCKET_DIR_VARIABLE`` names it. Forked endpoints leave by ``os._exit`` and skip this.
"""

import atexit
import os
import shutil
from pathlib import Path

from controlplane.target.forked import run_forked
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
    run_forked(lambda: serve_endpoint(spec), log_path, spec.cpus, spec.netns)
