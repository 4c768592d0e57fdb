"""Walking an experiment's steps: Chaos Toolkit in a child process of its own, one a run.

Run as a library it needs the main thread, swallows SIGTERM and shares globals; as a child it can be killed at any
moment, because nothing that matters depends on it: faults, leases and times are the control plane's.
"""

import asyncio
import json
import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sized
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from controlplane.chaos.experiment import Walk
from controlplane.chaos.steps import PIPE
from controlplane.errors import ExperimentError
from controlplane.tls import PINNED

STEP_LIMIT_S = 60.0
"""A step that takes longer, besides what it says that it waits for (`within_s`, `for_s`, `pauses`), is hung."""
START_LIMIT_S = 60.0
"""The first step has to begin within this."""
END_GRACE_S = 5.0
ROLL_WITHIN_S = 300.0
"""How long `inject_rolling` waits for each endpoint where the page does not say."""
_LONGEST_S = 1e9
"""A page may say `.inf`; no clock waits for that."""

Note = Callable[[str], Awaitable[None]]


class ChaosToolkit:
    """Starts `chaos run` with the way back to this control plane in its environment."""

    def __init__(self, url: str, token: str, endpoints: Callable[[str], Sized], pinned: Path | None = None) -> None:
        """Take what a child needs, and how long it may take.

        Args:
            url: where the child reaches this control plane.
            token: what it shows there.
            endpoints: those of a pool, by its name: a fault that rolls takes its time for each of them.
            pinned: the certificate that the child believes; None goes by the system's.
        """
        self._url = url
        self._token = token
        self._endpoints = endpoints
        self._pinned = {PINNED: str(pinned)} if pinned else {}

    async def walk(self, experiment: Path, drill_id: str, journal: Path, limit_s: float, note: Note) -> Walk:
        """Run an experiment to its end, or to a limit. When it is called off the child is killed at once.

        Args:
            experiment: the experiment's file.
            drill_id: the drill the extension acts for.
            journal: where Chaos Toolkit writes its journal; its log goes beside it, and so does the page that is run.
            limit_s: seconds after which the child is killed, besides those that its steps say they wait for.
            note: told each step as it begins and ends.

        Returns:
            What the journal says; nothing that this method returns is trusted for safety.

        Raises:
            ExperimentError: when Chaos Toolkit cannot be started, or a step hangs.
        """
        page, run_page, controls = _files(experiment, journal)
        whole_s = limit_s + all_waits_s(page, self._endpoints)
        reading, writing = os.pipe()
        try:
            child = await self._start(run_page, controls, journal, drill_id, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        try:
            hung = await _follow(child, reading, limits(page), whole_s, note)
        finally:
            await _end(child)
        if hung:
            raise ExperimentError("the runner was ended", hung, "see its log beside the journal")
        return read_journal(journal)

    async def _start(
        self, page: Path, controls: Path, journal: Path, drill_id: str, pipe: int
    ) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "CONTROLPLANE_URL": self._url,
            "CONTROLPLANE_TOKEN": self._token,
            "CONTROLPLANE_DRILL": drill_id,
            **self._pinned,
            PIPE: str(pipe),
        }
        command = (sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file",
                   "--settings", os.devnull, "run", "--control-file", str(controls),
                   "--journal-path", str(journal), str(page))  # fmt: skip
        try:
            with journal.with_suffix(".log").open("wb") as output:
                return await asyncio.create_subprocess_exec(
                    *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True, pass_fds=(pipe,),
                )  # fmt: skip
        except OSError as error:
            raise ExperimentError("cannot start Chaos Toolkit", str(error), "install `chaostoolkit`") from error


_CONTROLS = {"controlplane": {"provider": {"type": "python", "module": "controlplane.chaos.steps"}}}


def _files(experiment: Path, journal: Path) -> tuple[Mapping[str, Any], Path, Path]:
    """Write what the child reads beside the journal; return the experiment's page, its prepared copy, the controls."""
    try:
        page = yaml.safe_load(experiment.read_text(encoding="utf-8"))
        return page, _beside(journal, ".experiment.json", prepared(page)), _beside(journal, ".controls.json", _CONTROLS)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise ExperimentError(f"cannot prepare {experiment}", str(error), "mend the file, or free space") from error


def _beside(journal: Path, ending: str, content: object) -> Path:
    path = journal.with_suffix(ending)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def prepared(page: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's page as it is run: its rollbacks always run, whatever the file says."""
    runtime = page.get("runtime")
    return {
        **page,
        "runtime": {**(runtime if isinstance(runtime, Mapping) else {}), "rollbacks": {"strategy": "always"}},
    }


def limits(page: Mapping[str, Any]) -> dict[str, float]:
    """Return how many seconds each step may take, by its name; of steps with one name, the longest.

    One that breaks endpoint after endpoint bounds its waits for each by itself: it may take as long as the whole run.
    """
    found: dict[str, float] = {}
    for step in _steps(page):
        name = str(step.get("name", ""))
        limit_s = math.inf if _rolls(step) else STEP_LIMIT_S + _waits_s(step)
        found[name] = max(found.get(name, 0.0), limit_s)
    return found


def all_waits_s(page: Mapping[str, Any], endpoints: Callable[[str], Sized]) -> float:
    """Return how many seconds all steps together may wait by what they say.

    Args:
        page: the experiment's page.
        endpoints: those of a pool, by its name.
    """
    waits_s = 0.0
    for step in _steps(page):
        waits_s += _waits_s(step)
        if _rolls(step):
            arguments = _provider(step).get("arguments")
            pool = arguments.get("pool") if isinstance(arguments, Mapping) else None
            waits_s += len(endpoints(str(pool))) * _turn_s(arguments)
    return waits_s


def _steps(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    hypothesis = page.get("steady-state-hypothesis")
    probes = hypothesis.get("probes") if isinstance(hypothesis, Mapping) else None
    for step in (*(probes or ()), *(page.get("method") or ()), *(page.get("rollbacks") or ())):
        if isinstance(step, Mapping):
            yield step


def _provider(step: Mapping[str, Any]) -> Mapping[str, Any]:
    provider = step.get("provider")
    return provider if isinstance(provider, Mapping) else {}


def _rolls(step: Mapping[str, Any]) -> bool:
    """Tell whether a step breaks the endpoints of a pool one after another."""
    return bool(_provider(step).get("func") == "inject_rolling")


def _waits_s(step: Mapping[str, Any]) -> float:
    """Return how long a step waits, by what it says; of one that rolls, only the pauses around it."""
    arguments, pauses = None if _rolls(step) else _provider(step).get("arguments"), step.get("pauses")
    named = ((arguments, "within_s"), (arguments, "for_s"), (pauses, "before"), (pauses, "after"))
    return sum(_seconds(node, key) for node, key in named)


def _turn_s(arguments: object) -> float:
    """Return how long one endpoint of a roll may take: broken and proven, healed, its pool back, and left alone."""
    return STEP_LIMIT_S + 2 * _seconds(arguments, "within_s", ROLL_WITHIN_S) + _seconds(arguments, "pause_s")


def _seconds(node: object, key: str, unsaid: float = 0.0) -> float:
    value = node.get(key, unsaid) if isinstance(node, Mapping) else unsaid
    return max(0.0, min(_LONGEST_S, float(value))) if isinstance(value, int | float) else 0.0


async def _follow(
    child: asyncio.subprocess.Process, pipe: int, limits: Mapping[str, float], limit_s: float, note: Note
) -> str:
    """Pass on each step the child tells, until it ends.

    Returns:
        Why the child has to be ended; an empty string when it ended by itself.
    """
    end = monotonic() + limit_s
    due = {"its first step": monotonic() + START_LIMIT_S}
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", buffering=0)
    )
    try:
        while True:
            late = min(due, key=due.__getitem__, default="")
            try:
                async with asyncio.timeout(max(0.0, min(due.get(late, end), end) - monotonic())):
                    line = await reader.readline()
            except TimeoutError:
                return f"`{late}` did not end in time" if late and due[late] < end else "it took too long as a whole"
            except ValueError:
                return "it tells its steps in lines without end"
            if not line:
                break
            await _pass_on(line, due, limits, note)
        try:
            async with asyncio.timeout(max(0.0, min(end - monotonic(), STEP_LIMIT_S))):
                await child.wait()
        except TimeoutError:
            return "it closed its pipe and did not end"
        return ""
    finally:
        transport.close()


async def _pass_on(line: bytes, due: dict[str, float], limits: Mapping[str, float], note: Note) -> None:
    """Take one line in; what is no step is left out."""
    try:
        event = json.loads(line)
        name, begins = str(event["name"]), event["step"] == "begin"
    except (ValueError, LookupError, TypeError):
        return
    due.pop("its first step", None)
    if begins:
        due[name] = monotonic() + limits.get(name, STEP_LIMIT_S)
        await note(f"begins: {name}")
        return
    due.pop(name, None)
    missed = ", not as expected" if event.get("tolerance_met") is False else ""
    why = f": {event.get('why')}" if event.get("why") else ""
    await note(f"{event.get('status') or 'ended'}{missed}: {name}{why}")


async def _end(child: asyncio.subprocess.Process) -> None:
    """Make sure the child and whatever it started are gone; nothing it could still do is of use."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_GRACE_S):
                await child.wait()


def read_journal(path: Path) -> Walk:
    """Read a Chaos Toolkit journal; one that is missing, torn or of another shape gives an empty status."""
    try:
        journal: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        failed = [
            str(run["activity"]["name"])
            for run in (*journal.get("run", ()), *journal.get("rollbacks", ()))
            if run.get("status") != "succeeded" or run.get("tolerance_met") is False
        ]
        return Walk(str(journal.get("status", "")), bool(journal.get("deviated", False)), tuple(failed))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Walk("", deviated=False, failed_activities=())
