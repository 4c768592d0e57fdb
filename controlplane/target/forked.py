"""What every process forked from the fork server does before its own work: its group, its place, its log, its end.

Light to import: the fork server holds torch, but what a cache or a link runs has no use for it.
"""

import ctypes
import gc
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from controlplane.target.errors import TargetError
from controlplane.target.lifeline import die_with_parent

NAMESPACES = Path("/var/run/netns")
"""Where iproute2 keeps the network namespaces that have a name."""
CLONE_NEWNET = 0x40000000
"""setns(2): the namespace is a network namespace. Python has no setns before 3.12."""


def run_forked(work: Callable[[], int], log_path: Path, cpus: tuple[int, ...] = (), netns: str | None = None) -> None:
    """Do ``work`` in a process group of its own, logging to ``log_path``, and exit with what it returns."""
    parent = os.getppid()
    os.setsid()
    die_with_parent(parent)
    _let_go_of_the_fork_server()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    # What the fork server has imported lives as long as the process: looking through it for garbage would stop every
    # answer for tens of milliseconds, and copy the memory that it shares.
    gc.freeze()
    try:
        _move(cpus, netns)
        code = work()
    except TargetError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    sys.exit(code)


def _move(cpus: tuple[int, ...], netns: str | None) -> None:
    if cpus and sys.platform == "linux":
        os.sched_setaffinity(0, cpus)
    if netns is None:
        return
    try:
        namespace = os.open(NAMESPACES / netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError(
            f"cannot enter network namespace {netns}", str(error.strerror), "Start the fleet again."
        ) from error
    try:
        enter(namespace)
    except OSError as error:
        raise TargetError(
            f"cannot enter network namespace {netns}", str(error.strerror), "Run the fleet as root."
        ) from error
    finally:
        os.close(namespace)


def enter(namespace: int) -> None:
    """Move this thread into a network namespace, given as an open file; raises `OSError` where it may not."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _let_go_of_the_fork_server() -> None:
    """Close the pipe by which multiprocessing's children keep their fork server alive after the fleet has died.

    The fork server must end with the fleet, and this process with the fork server; holding the pipe would keep all of
    them running for ever after a SIGKILL of the fleet. Python has no public name for it.
    """
    pipe = getattr(multiprocessing.forkserver._forkserver, "_forkserver_alive_fd", None)  # noqa: SLF001
    if pipe is not None:
        with suppress(OSError):
            os.close(pipe)
