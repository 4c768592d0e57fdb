"""A network namespace for a lab with real pods: bridges, service addresses and packet rules that end with it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controlplane.target.forked import NAMESPACES, enter

HERE = "192.0.2.1"
"""This end of the lab, as pods see it."""
SERVICES = "10.96.0.0/16"
"""Where Services have their addresses: they need a route, or they never meet the rules that lead to pods."""


@contextmanager
def own_network(name: str) -> Iterator[None]:
    """Make a network namespace, and be in it: this thread, and every process that it starts meanwhile."""
    ip("netns", "add", name)
    try:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with (NAMESPACES / name).open("rb") as own:
                enter(own.fileno())
            ip("link", "set", "lo", "up")
            ip("address", "add", f"{HERE}/32", "dev", "lo")
            ip("route", "add", SERVICES, "dev", "lo", "src", HERE)
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
            yield
        finally:
            enter(before)
            os.close(before)
    finally:
        ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    """Run iproute2 once, where this thread is."""
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
