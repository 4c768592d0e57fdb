"""A network namespace for every endpoint, joined by a bridge, through iproute2 (Linux, root).

The fleet makes them before its first process and removes them after its last. What was made is written down first, so
that the next fleet on the same run directory removes what a killed one left behind.
"""

import ipaddress
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.target.errors import TargetError
from controlplane.target.rundir import write_json

PREFIX = "cp"
PORT = 8000
"""What an endpoint listens on inside its namespace, where no other port is in its way."""


@dataclass(frozen=True, slots=True)
class Net:
    """One fleet's bridge and namespaces."""

    record: Path
    """Where their names are written down."""
    bridge: str
    host: str
    """The bridge's own address, under which this machine is reached from inside."""
    gateway: str
    """The bridge's second address, which the gateway comes from and nobody else."""
    namespaces: dict[str, str]
    """Namespace by node."""
    addresses: dict[str, str]
    """IPv4 address by node."""

    def remove(self) -> None:
        """Remove everything; what is gone already counts as removed."""
        _remove(self.bridge, self.namespaces.values())
        self.record.unlink(missing_ok=True)


def make(nodes: Sequence[str], record: Path) -> Net:
    """Make a namespace for each node.

    Args:
        nodes: the nodes' names.
        record: file to write the names to before anything is made.

    Raises:
        TargetError: when this machine or this user cannot; nothing is left behind then.
    """
    _check()
    sweep(record)
    mark = f"{PREFIX}{random.SystemRandom().randrange(16**5):05x}"
    subnet = _free_subnet()
    hosts = [str(address) for address in subnet.hosts()]
    net = Net(
        record,
        f"{mark}br",
        hosts[0],
        hosts[-1],
        {node: f"{mark}-{node}" for node in nodes},
        {node: hosts[number + 1] for number, node in enumerate(nodes)},
    )
    write_json(record, {"bridge": net.bridge, "namespaces": list(net.namespaces.values())})
    try:
        _ip("link", "add", net.bridge, "type", "bridge")
        for own in (net.host, net.gateway):
            _ip("addr", "add", f"{own}/{subnet.prefixlen}", "dev", net.bridge)
        _ip("link", "set", net.bridge, "up")
        for number, node in enumerate(nodes):
            _join(net, node, f"{mark}v{number}", subnet.prefixlen)
    except TargetError:
        net.remove()
        raise
    return net


def sweep(record: Path) -> None:
    """Remove what an earlier fleet wrote down and could not remove."""
    try:
        left = json.loads(record.read_text())
        bridge, namespaces = str(left["bridge"]), [str(name) for name in left["namespaces"]]
    except (OSError, ValueError, KeyError, TypeError):
        return
    _remove(bridge, [name for name in namespaces if name.startswith(PREFIX)])
    record.unlink(missing_ok=True)


def _join(net: Net, node: str, cable: str, prefix: int) -> None:
    """Make one namespace and lay a cable from it to the bridge."""
    namespace = net.namespaces[node]
    _ip("netns", "add", namespace)
    _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    _ip("link", "set", cable, "master", net.bridge, "up")
    _ip("-n", namespace, "addr", "add", f"{net.addresses[node]}/{prefix}", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", namespace, "link", "set", device, "up")


def _remove(bridge: str, namespaces: Iterable[str]) -> None:
    """Remove cables, namespaces and the bridge. A namespace takes its cable along too, but only some time later."""
    with suppress(TargetError, ValueError, KeyError):
        for cable in json.loads(_ip("-j", "link", "show", "master", bridge)):
            with suppress(TargetError):
                _ip("link", "del", cable["ifname"])
    for name in namespaces:
        with suppress(TargetError):
            _ip("netns", "del", name)
    with suppress(TargetError):
        _ip("link", "del", bridge)


def _check() -> None:
    what = "cannot give endpoints network namespaces"
    if sys.platform != "linux":
        raise TargetError(what, "only Linux has them", "Leave --netns out; links are relays then.")
    if os.geteuid() != 0:
        raise TargetError(what, "only root may make them", "Run as root, or leave --netns out.")
    if shutil.which("ip") is None:
        raise TargetError(what, "the command `ip` is missing", "Install iproute2, or leave --netns out.")


def _free_subnet() -> ipaddress.IPv4Network:
    """Choose 256 private addresses that this machine has no route to but the default one."""
    routes = json.loads(_ip("-j", "-4", "route", "show", "table", "all"))
    taken = []
    for route in routes:
        with suppress(ValueError, KeyError):
            taken.append(ipaddress.IPv4Network(route["dst"], strict=False))
    for second in random.SystemRandom().sample(range(256 * 256), 200):
        subnet = ipaddress.IPv4Network(f"10.{second // 256}.{second % 256}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise TargetError("cannot find a free subnet", "10.0.0.0/8 is taken", "Leave --netns out.")


def _ip(*arguments: str) -> str:
    """Run iproute2.

    Raises:
        TargetError: with what it complains about.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=10)
    if done.returncode:
        raise TargetError(f"`ip {' '.join(arguments)}` failed", done.stderr.strip(), "Leave --netns out.")
    return done.stdout
