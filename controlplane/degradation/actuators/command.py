"""Commands that the page allows by name: a program and its arguments as they are, never a shell.

What ran last is kept in a file for each command, written before it is begun and when it has ended: whoever comes after
a crash knows. The command is told its key (`CONTROLPLANE_KEY`) and gets a small environment of its own.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from controlplane.degradation.action import Errand, Run
from controlplane.degradation.actuator import Preflight
from controlplane.degradation.errand import CommandSpec, wrong_with_command
from controlplane.errors import ActuatorError
from controlplane.wholefile import write_whole

MOST_OUTPUT = 4096
"""Bytes of output that are kept: the last ones."""
KILL_AFTER_S = 2.0
"""From SIGTERM to SIGKILL of the process group."""
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "KUBECONFIG")
BEGUN, DONE, UNDONE = "begun", "done", "undone"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    status: int | None
    """None when it was killed at its timeout."""
    output: str
    """Its standard output and errors together, the last part."""


@dataclass(frozen=True, slots=True)
class Record:
    """What ran last under a name."""

    key: str
    state: str
    output: str = ""


class CommandHand:
    """Runs the commands on the page. A page that allows none turns this off."""

    def __init__(self, commands: Mapping[str, CommandSpec], records: Path) -> None:
        """Take the commands, by name, and the directory for what ran."""
        self._commands = commands
        self._records = records
        self._running = asyncio.Lock()

    async def preflight(self, errand: Errand) -> Preflight:
        """Ask whether the command is allowed and its programs are there; nothing is run."""
        try:
            name, spec = self._command(errand)
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        for line in (spec.run, spec.undo, spec.check):
            if line and not os.access(line[0], os.X_OK):
                return Preflight(f"command {name} cannot be run: {line[0]} is not a program this process may start")
        return Preflight(preview=f"would run {' '.join(spec.run)}")

    async def apply(self, errand: Errand, key: str) -> str:
        """Run it, unless it has run for this key.

        Raises:
            ActuatorError: when it is not allowed, failed, or was killed at its timeout; what undoes it was run then.
        """
        name, spec = self._command(errand)
        async with self._running:
            before = self._read(name)
            if before and before.key == key and before.state == DONE:
                return f"{name} has run: {before.output}".rstrip(": ")
            # A control plane that died in the middle does not know how far it came: where there is a check, that does.
            if before and before.key == key and before.state == BEGUN and await self._holds(name, spec, key):
                self._write(name, Record(key, DONE, before.output))
                return f"{name} is in force"
            self._write(name, Record(key, BEGUN))
            ended = await run(spec.run, spec.timeout.total_seconds(), key)
            if ended.status != 0:
                undone = await run(spec.undo, spec.timeout.total_seconds(), key)
                self._write(name, Record(key, UNDONE, ended.output))
                raise _failed(name, ended, spec, "" if undone.status == 0 else "; undoing it failed too")
            self._write(name, Record(key, DONE, ended.output))
        return f"ran {name}: {ended.output}".rstrip(": ")

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:  # noqa: ARG002
        """Run what undoes it, unless it has.

        Raises:
            ActuatorError: when that failed, or was killed at its timeout.
        """
        name, spec = self._command(errand)
        async with self._running:
            last = self._read(name)
            if last and last.key == key and last.state == UNDONE:
                return f"{name} is undone"
            ended = await run(spec.undo, spec.timeout.total_seconds(), key)
            if ended.status != 0:
                raise _failed(f"undoing {name}", ended, spec)
            self._write(name, Record(key, UNDONE, ended.output))
        return f"undid {name}: {ended.output}".rstrip(": ")

    async def observe(self, errand: Errand, key: str, done: str) -> str:
        """Return what its check says; without one, that it ended with 0 as it was stored, by whichever process."""
        name, spec = self._command(errand)
        return await self._holds(name, spec, key) if spec.check else done

    async def _holds(self, name: str, spec: CommandSpec, key: str) -> str:
        if not spec.check:
            return ""
        ended = await run(spec.check, spec.timeout.total_seconds(), key)
        return f"{name} is in force: {ended.output}".rstrip(": ") if ended.status == 0 else ""

    def _command(self, errand: Errand) -> tuple[str, CommandSpec]:
        if not isinstance(errand, Run):
            raise TypeError(f"not a run errand: {errand}")
        spec = self._commands.get(errand.command)
        if spec is None:
            raise ActuatorError(
                f"no command {errand.command}", f"the page allows: {', '.join(sorted(self._commands)) or 'none'}",
                "allow it under `degradation.commands`",
            )  # fmt: skip
        wrong = wrong_with_command(spec)
        if wrong:
            raise ActuatorError(f"command {errand.command} may not be run", wrong, "mend it on the page")
        return errand.command, spec

    def _read(self, name: str) -> Record | None:
        try:
            return Record(**json.loads(self._path(name).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise _unusable(self._path(name), error) from error

    def _write(self, name: str, record: Record) -> None:
        try:
            self._records.mkdir(parents=True, exist_ok=True)
            write_whole(self._path(name), json.dumps(asdict(record)), 0o600)
        except OSError as error:
            raise _unusable(self._path(name), error) from error

    def _path(self, name: str) -> Path:
        return self._records / f"{name.encode().hex()}.json"


async def run(line: Sequence[str], timeout_s: float, key: str) -> Ended:
    """Run a program to its end, or kill it and everything it started at its timeout."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {"CONTROLPLANE_KEY": key}
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    # A pipe of our own: a process that asyncio reads from counts as running while anything holds its output open.
    reads, writes = os.pipe()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reads, "rb", 0))
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *line,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writes,
                stderr=writes,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Ended(127, f"{type(error).__name__}: {error}")
        finally:
            os.close(writes)
        tail = bytearray()
        reading = asyncio.ensure_future(_keep_tail(reader, tail))
        status: int | None = None
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    status = await process.wait()
        finally:
            # Also what it left running in its group, and also when we are called off.
            await asyncio.shield(_end(process, reading))
        return Ended(status, bytes(tail).decode(errors="replace").strip())
    finally:
        transport.close()


async def _keep_tail(reader: asyncio.StreamReader, tail: bytearray) -> None:
    while part := await reader.read(65536):
        tail += part
        del tail[:-MOST_OUTPUT]


async def _end(process: asyncio.subprocess.Process, reading: "asyncio.Future[None]") -> None:
    """End the process group, and wait until nobody holds its output open."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_AFTER_S):
                await process.wait()
                await asyncio.shield(reading)
            return
    reading.cancel()


def _failed(what: str, ended: Ended, spec: CommandSpec, more: str = "") -> ActuatorError:
    took = f"killed after {spec.timeout.total_seconds():g} s" if ended.status is None else f"status {ended.status}"
    return ActuatorError(f"command {what} failed", f"{took}: {ended.output}{more}", "run it by hand to see why")


def _unusable(path: Path, error: Exception) -> ActuatorError:
    return ActuatorError(f"cannot keep what ran in {path}", str(error), "make it a writable file, or take it away")
