"""``controlplane up``: a fleet of reference endpoints behind a gateway, on this machine, without root.

``run_fleet`` starts in order (fork server, gateway, nodes), says ready when the whole chain
answers, and stops in reverse.
What it publishes in the run directory is described in ``rundir``; ``layout`` says where everything lies.
"""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.error import URLError
from urllib.request import Request, urlopen

from controlplane.target import netns
from controlplane.target.child import Child
from controlplane.target.envoy import Gateway, find_envoy
from controlplane.target.errors import TargetError
from controlplane.target.forkserver import ForkServer
from controlplane.target.layout import Layout, lay_out, node_names, ports_needed
from controlplane.target.link import LinkKeeper
from controlplane.target.node import Node
from controlplane.target.rundir import RunDir, free_ports, port_is_free, write_json, write_secret
from controlplane.target.spec import PRESETS, SERVICE_MODEL, FleetSpec

POLL_S = 0.05
"""How often a starting fleet asks what does not answer yet."""
ASK_TIMEOUT_S = 2.0
"""Longest wait for one answer while the fleet starts."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Everything that runs."""

    spec: FleetSpec
    run_dir: RunDir
    gateway: Gateway
    nodes: tuple[Node, ...]
    links: tuple[LinkKeeper, ...]

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set; whatever happens, nothing is left running."""
        async with asyncio.TaskGroup() as group:
            parts: list[Gateway | LinkKeeper | Node] = [self.gateway, *self.links, *self.nodes]
            tasks = [group.create_task(part.run()) for part in parts]
            try:
                stopped = group.create_task(stop.wait())
                started = group.create_task(self._wait_ready())
                await asyncio.wait({stopped, started}, return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set():
                    started.result()
                    self._say_ready()
                    await stopped
            finally:
                stopped.cancel()
                started.cancel()
                self.run_dir.ready.unlink(missing_ok=True)
                await self._stop(tasks)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        """Stop the gateway's clients last: first no new requests, then the endpoints."""
        await self.gateway.stop(self.spec.stop_timeout_s)
        await asyncio.gather(*(node.stop(self.spec.stop_timeout_s) for node in self.nodes))
        await asyncio.gather(*(link.stop(self.spec.stop_timeout_s) for link in self.links))
        await asyncio.wait(tasks, timeout=self.spec.stop_timeout_s)
        for task in tasks:
            task.cancel()

    async def _wait_ready(self) -> None:
        """Wait until every endpoint answers its health check and the gateway a completion."""
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                async with asyncio.TaskGroup() as group:
                    for node in self.nodes:
                        group.create_task(_until_answered(f"{node.url}/health"))
                body = json.dumps({"model": SERVICE_MODEL, "prompt": "ready?", "max_tokens": 1}).encode()
                await _until_answered(f"{self.gateway.url}/v1/completions", body)
        except TimeoutError:
            raise TargetError(
                "the fleet did not come up",
                f"not every endpoint answered within {self.spec.start_timeout_s:.0f} s",
                f"Read the logs in {self.run_dir.logs}.",
            ) from None

    def _say_ready(self) -> None:
        write_json(
            self.run_dir.ready,
            {
                "pid": os.getpid(),
                "gateway": self.gateway.url,
                "admin": f"http://{self.gateway.admin()}",
                "ready_at": time.time(),
                "endpoints": {node.endpoint.name: node.url for node in self.nodes},
            },
        )
        sys.stdout.write(
            f"fleet ready: {self.gateway.url} ({len(self.nodes)} endpoints, state in {self.run_dir.root})\n"
        )
        sys.stdout.flush()


async def _until_answered(url: str, body: bytes | None = None) -> None:
    """Ask again and again until ``url`` answers 200."""
    request = Request(url, data=body, headers={"content-type": "application/json"})  # noqa: S310 - always 127.0.0.1
    while not await asyncio.to_thread(_answers, request):  # noqa: ASYNC110 - another process answers
        await asyncio.sleep(POLL_S)


def _answers(request: Request) -> bool:
    try:
        with urlopen(request, timeout=ASK_TIMEOUT_S) as answer:  # noqa: S310 - always http://127.0.0.1
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def build(spec: FleetSpec, run_dir: RunDir, net: netns.Net | None = None) -> Fleet:
    """Choose ports, write what others discover the fleet by, and put the parts together; nothing runs yet.

    Args:
        spec: the fleet.
        run_dir: its state.
        net: the network namespaces of its nodes, when they have any.

    Raises:
        TargetError: when Envoy or torch is missing, a model is unknown, the port is taken, or a file cannot be written.
    """
    _check(spec)
    binary, fork_server = find_envoy(spec.envoy), ForkServer()
    layout = _placed(spec, run_dir, net)
    for pool in spec.pools:
        write_json(run_dir.discovery(pool), [seat.discovered for seat in layout.seats if seat.pool == pool])
    gateway = Gateway(binary, run_dir, layout.doors, replace(spec.gateway, source=net.gateway) if net else spec.gateway)
    gateway.write(spec.pools, {pool: layout.places(pool) for pool in spec.pools})
    nodes = [
        Node(
            seat.node,
            seat.pool,
            seat.endpoint,
            run_dir,
            Child(fork_server),
            seat.host,
            seat.port,
            seat.gateway_port,
            seat.gateway_from,
        )
        for seat in layout.seats
    ]
    links = [LinkKeeper(seat.link, run_dir, Child(fork_server)) for seat in layout.seats if seat.link]
    fork_server.start()
    return Fleet(spec, run_dir, gateway, tuple(nodes), tuple(links))


def _placed(spec: FleetSpec, run_dir: RunDir, net: netns.Net | None) -> Layout:
    token = secrets.token_urlsafe(24)
    write_secret(run_dir.cache_token, token + "\n")
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    homes = {}
    if net is not None:
        homes = {node: (net.namespaces[node], net.addresses[node], netns.PORT) for node in net.namespaces}
    ports = free_ports(ports_needed(spec))
    return lay_out(
        spec,
        run_dir,
        ports=ports,
        token=token,
        cpus=cpus,
        homes=homes,
        outside=net.host if net else "127.0.0.1",
        gateway_from=net.gateway if net else "",
    )


def _check(spec: FleetSpec) -> None:
    for name, pool in spec.pools.items():
        if pool.model not in PRESETS:
            raise TargetError(
                f"pool {name} cannot start", f"there is no model {pool.model!r}", f"Choose one of {', '.join(PRESETS)}."
            )
        for other in pool.failover:
            if other not in spec.pools:
                raise TargetError(
                    f"pool {name} cannot fail over", f"there is no pool {other!r}", "Name a pool of the fleet."
                )
    if spec.gateway_port and not port_is_free(spec.gateway_port):
        raise TargetError(
            f"cannot listen on 127.0.0.1:{spec.gateway_port}",
            "the port is taken",
            "Choose another with --port, or 0 for a free one.",
        )


def run_fleet(spec: FleetSpec) -> int:
    """Run a fleet until SIGINT or SIGTERM.

    Args:
        spec: the fleet and its run directory.

    Returns:
        The process's exit code: 0 after a clean stop.

    Raises:
        TargetError: when the fleet cannot start; nothing is left running then.
    """
    run_dir = RunDir(spec.run_dir)
    with run_dir.claim():
        try:
            asyncio.run(_run(spec, run_dir))
        except* TargetError as errors:
            raise _first(errors) from None
    return 0


async def _run(spec: FleetSpec, run_dir: RunDir) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with _network(spec, run_dir) as net:
        await build(spec, run_dir, net).run(stop)


@contextmanager
def _network(spec: FleetSpec, run_dir: RunDir) -> Iterator[netns.Net | None]:
    """Make the nodes' network namespaces when asked, and remove them whatever happens."""
    netns.sweep(run_dir.netns)
    if not spec.netns:
        yield None
        return
    net = netns.make(node_names(spec.pools), run_dir.netns)
    try:
        yield net
    finally:
        net.remove()


def _first(errors: BaseExceptionGroup[TargetError]) -> TargetError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TargetError):
        return error
    raise error
