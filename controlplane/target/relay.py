"""The link in front of one endpoint: a TCP relay that can lose, refuse or slow what passes, without root.

It runs in a process of its own (``run``), as the network would: killing the node does not kill it. Others break
the link by writing its control file, whole, by rename::

    {"mode": "drop", "until": 1764000000.0, "lease": "lease-1", "delay_ms": 0}

``pass`` is no fault. ``drop`` loses everything: open connections fall silent, and new ones are not even refused.
``reset`` cuts open connections and refuses new ones. ``delay`` holds every byte back for ``delay_ms`` in each
direction, so a round trip takes twice as long. ``"direction": "to"`` (or ``"from"``) breaks one way only: open
connections lose what goes to (comes from) the endpoint, and new ones cannot be made, since a handshake needs both.
``"peer": "gateway"`` breaks the way of the gateway alone, which has a port of its own, and ``"controlplane"`` that of
everybody else. The fault ends at ``until`` (unix seconds) by this process's own clock,
whoever else is dead by then; a file without it, or one that cannot be read, counts for nothing. Ended and unreadable
files are removed.

Otherwise the relay must not be noticed. While the endpoint does not listen, its port here refuses; and when the
endpoint dies, the port refuses before any client learns that its connection is gone, so that a prober which sees the
end of its connection and dials again is refused, as it would be without a relay.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvloop

from controlplane.target.forked import run_forked
from controlplane.target.link_fault import GATEWAY, OTHERS, WELL, Fault, read_fault
from controlplane.target.link_flow import CUT, Pair
from controlplane.target.spec import RelaySpec

LOOK_S = 0.02
"""How often the control file is looked at."""
DIAL_S = 0.01
"""How often a closed link asks whether its endpoint listens again."""
PF_EXITING = 0x4
"""Flag of a process in /proc/PID/stat, from include/linux/sched.h."""
GRACE_S = 0.003
"""How long the end of one connection is kept back, in case it is the end of the endpoint."""
CHECK_TIMEOUT_S = 0.05
"""Longest wait for an endpoint that may have died; one that does not refuse within it counts as alive."""
BACKLOG = 511


class Watch(asyncio.Protocol):
    """The link's own idle connection to the endpoint; its end says first that the endpoint may be gone."""

    def __init__(self, link: "Link") -> None:
        """Watch for ``link``."""
        self._link = link

    def connection_lost(self, exc: Exception | None) -> None:
        """Look what happened, and watch again."""
        del exc
        self._link.doubt(self._link.unwatched)


class Link:
    """The relay of one endpoint for one peer: its door, its connections and its fault."""

    def __init__(self, spec: RelaySpec, group: asyncio.TaskGroup, peer: str, port: int) -> None:
        """Make a closed link.

        Args:
            spec: the endpoint's.
            group: where its connections belong.
            peer: whose link it is: the gateway's, or everybody else's.
            port: where that peer knocks.
        """
        self.loop = asyncio.get_running_loop()
        self.fault = WELL
        self.pairs: set[Pair] = set()
        self._spec = spec
        self._peer, self._port = peer, port
        self._group = group
        self._alive = False
        self._watching = False
        self._door: socket.socket | None = None
        self._pid: int | None = None
        self._plugs: list[socket.socket] = []
        self._seen: tuple[int, int] | None = None

    @property
    def dark(self) -> bool:
        """Whether everything is lost now."""
        return self.fault.mode == "drop"

    async def run(self) -> None:
        """Follow the control file and the endpoint, for ever."""
        dialled = 0.0
        while True:
            self._look()
            if not self._watching and not self.dark and self.loop.time() - dialled >= DIAL_S:
                dialled = self.loop.time()
                await self._dial()
            await asyncio.sleep(LOOK_S if self._alive else DIAL_S)

    def _look(self) -> None:
        """Take up the control file when it has changed, and end a fault whose time is over."""
        if self.fault is not WELL and self.fault.until <= time.time():
            self._forget()
        try:
            found = self._spec.control.stat()
            if (found.st_ino, found.st_mtime_ns) == self._seen:
                return
            fault = read_fault(self._spec.control.read_text(), time.time())
            self._seen = (found.st_ino, found.st_mtime_ns)
        except FileNotFoundError:
            self._seen = None
            self._become(WELL)
            return
        except (OSError, ValueError):
            fault = None
        if fault is None:
            self._forget()
        else:
            self._become(fault if fault.hits(self._peer) else WELL)

    def _forget(self) -> None:
        self._seen = None
        with suppress(OSError):
            self._spec.control.unlink(missing_ok=True)
        self._become(WELL)

    def _become(self, fault: Fault) -> None:
        if fault == self.fault:
            return
        lease = fault.lease or self.fault.lease
        _log({"event": "link", "link": self._spec.name, "peer": self._peer, "mode": fault.mode, "lease": lease})
        self.fault = fault
        if fault.mode == "reset":
            self._shut()
            for pair in list(self.pairs):
                pair.cut()
        self._settle()
        for pair in list(self.pairs):
            pair.pump()

    def doubt(self, then: Callable[[], None]) -> None:
        """Do something about a connection that the endpoint ended, once it is known whether the endpoint is gone too.

        A dying process closes its connections a moment before its listening socket: the newest files go first. So the
        kernel is asked whether the process is dying, and where it does not say, the endpoint again a little later.
        """
        self._check()
        if self._alive and not self.dark and self._pid is None:
            self.loop.call_later(GRACE_S, self._pass_on, then)
        else:
            then()

    def _pass_on(self, then: Callable[[], None]) -> None:
        self._check()
        then()

    def _check(self) -> None:
        """Ask the kernel whether the endpoint still listens; close the door at once when it does not.

        This blocks for some tens of microseconds on purpose: nobody may learn of the end before the door is closed.
        """
        if not self._alive or self.dark:
            return
        if self._pid is not None and dying(self._pid):
            self._lost()
            return
        try:
            socket.create_connection((self._spec.backend_host, self._spec.backend_port), CHECK_TIMEOUT_S).close()
        except TimeoutError:
            return
        except OSError:
            self._lost()

    def _lost(self) -> None:
        self._alive = False
        self._settle()

    def unwatched(self) -> None:
        """Note that the watching connection is gone."""
        self._watching = False

    async def _dial(self) -> None:
        """Try to reach the endpoint; the connection that works is kept to watch it."""
        try:
            await self.loop.create_connection(lambda: Watch(self), sock=await self._connected())
        except OSError:
            self._lost()
            return
        self._watching = True
        self._pid = self._read_pid()
        if self._pid is not None and dying(self._pid):
            self._lost()
            return
        self._alive = True
        self._settle()

    def _read_pid(self) -> int | None:
        """Return the endpoint's process, as its supervisor has written it down."""
        try:
            return int(json.loads(self._spec.node_file.read_text())["pid"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    async def _connected(self) -> socket.socket:
        sock = _tcp()
        try:
            await self.loop.sock_connect(sock, (self._spec.backend_host, self._spec.backend_port))
        except BaseException:
            sock.close()
            raise
        return sock

    def _settle(self) -> None:
        """Bring the door in line with the fault and the endpoint."""
        if self.dark:
            self._darken()
        elif self._alive and self.fault.mode != "reset":
            self._open()
        else:
            self._shut()

    def _open(self) -> None:
        if self._door is not None and not self._plugs:
            return
        try:
            door = self._door or self._bound()
            door.listen(BACKLOG)
        except OSError as error:
            _log({"event": "cannot listen", "link": self._spec.name, "port": self._port, "error": str(error)})
            return
        for plug in self._plugs:
            plug.close()
        self._plugs.clear()
        self._door = door
        self.loop.add_reader(door, self._accept)

    def _darken(self) -> None:
        """Have the kernel lose what asks for a new connection.

        Linux drops a SYN to a socket whose queue of unaccepted connections is full. So: accept nothing, shorten the
        queue to its least, and fill it with a connection from here.
        """
        if self._plugs:
            return
        if self._door is not None:
            self.loop.remove_reader(self._door)
        try:
            self._door = self._door or self._bound()
            self._door.listen(0)
        except OSError as error:
            _log({"event": "cannot listen", "link": self._spec.name, "port": self._port, "error": str(error)})
            return
        for _ in range(2):
            plug = _tcp()
            with suppress(OSError):
                plug.connect((self._spec.host, self._port))
            self._plugs.append(plug)

    def _shut(self) -> None:
        if self._door is None:
            return
        self.loop.remove_reader(self._door)
        self._door.close()
        self._door = None
        for plug in self._plugs:
            plug.close()
        self._plugs.clear()

    def _bound(self) -> socket.socket:
        sock = _tcp()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self._spec.host, self._port))
        except OSError:
            sock.close()
            raise
        return sock

    def _accept(self) -> None:
        while self._door is not None:
            try:
                sock, _ = self._door.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log({"event": "cannot accept", "link": self._spec.name, "error": str(error)})
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._group.create_task(self._join(sock))

    async def _join(self, sock: socket.socket) -> None:
        """Connect a client to the endpoint; a client whose endpoint is gone is cut."""
        try:
            backend = await self._connected()
        except OSError:
            self._lost()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CUT)
            sock.close()
            return
        pair = Pair(self)
        self.pairs.add(pair)
        try:
            await self.loop.create_connection(lambda: pair.server, sock=backend)
            await self.loop.connect_accepted_socket(lambda: pair.client, sock)
        except OSError:
            self.pairs.discard(pair)
            pair.cut()


def dying(pid: int) -> bool:
    """Tell whether a process is dead or has begun to die, even while some of its sockets still live (Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        return sys.platform == "linux"
    except OSError:
        return True
    return fields[0] in b"ZX" or bool(int(fields[6]) & PF_EXITING)


def _tcp() -> socket.socket:
    # The protocol is named because asyncio turns Nagle off only where it is.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _log(fields: dict[str, object]) -> None:
    sys.stdout.write(json.dumps({"ts": round(time.time(), 3), "pid": os.getpid(), **fields}) + "\n")
    sys.stdout.flush()


def run(spec: RelaySpec, log_path: Path) -> None:
    """Serve one link in this forked process until a signal ends it; never returns."""
    run_forked(lambda: serve_link(spec), log_path)


def serve_link(spec: RelaySpec) -> int:
    """Serve one link until SIGTERM ends the process: a link holds nothing that needs an orderly end."""
    with suppress(KeyboardInterrupt):
        uvloop.run(_serve(spec))
    return 0


async def _serve(spec: RelaySpec) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(Link(spec, group, OTHERS, spec.port).run())
        if spec.gateway_port:
            group.create_task(Link(spec, group, GATEWAY, spec.gateway_port).run())
