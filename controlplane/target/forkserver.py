"""Forks the fleet's processes from one server process that has imported torch once (multiprocessing's fork server)."""

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from controlplane.target.errors import TargetError
from controlplane.target.spec import CacheSpec, EndpointSpec, RelaySpec

PRELOAD = "controlplane.target.endpoint"
SOCKET_DIR_VARIABLE = "CONTROLPLANE_FORKSERVER_DIR"
"""The same name as in ``endpoint``, which is too heavy to import here."""
Work = EndpointSpec | CacheSpec | RelaySpec
"""What a forked process may be asked to do."""


class ForkServer:
    """Starts endpoints, caches and links: children of the fork server that die with it. It dies with this process."""

    def __init__(self) -> None:
        """Check that torch is there; nothing is started yet.

        Raises:
            TargetError: without torch.
        """
        if find_spec("torch") is None:
            raise TargetError(
                "cannot run the reference model", "torch is missing", "pip install 'controlplane[target]'."
            )
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the fork server; it imports torch in the background."""
        with self._lock, _environment():
            multiprocessing.forkserver.ensure_running()

    def spawn(self, spec: Work, log_path: Path) -> ForkServerProcess:
        """Fork one process; blocks until the fork server has its imports (seconds at first, then milliseconds)."""
        with self._lock, _environment(), _empty_main():
            process = self._context.Process(target=_run, args=(spec, log_path), name=spec.name, daemon=True)
            process.start()
        return process


def _run(spec: Work, log_path: Path) -> None:
    """Hand over to the module that does the work, inside the forked process: the fleet itself needs none of them."""
    if isinstance(spec, RelaySpec):
        from controlplane.target.relay import run as serve_link  # noqa: PLC0415

        serve_link(spec, log_path)
    elif isinstance(spec, CacheSpec):
        from controlplane.target.cache_server import run as serve_cache  # noqa: PLC0415

        serve_cache(spec, log_path)
    else:
        from controlplane.target.endpoint import run as serve_endpoint  # noqa: PLC0415

        serve_endpoint(spec, log_path)


@contextmanager
def _environment() -> Iterator[None]:
    """Give the fork server what it inherits: this package's path, one thread for maths, no keyboard interrupts."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    wanted = {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        SOCKET_DIR_VARIABLE: str(multiprocessing.util.get_temp_dir()),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _empty_main() -> Iterator[None]:
    """Show multiprocessing an empty main module, or every endpoint would import the command line again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
