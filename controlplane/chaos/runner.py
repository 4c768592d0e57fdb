"""Walking an experiment's steps: Chaos Toolkit in a child process of its own, one a run.

Run as a library it needs the main thread, swallows SIGTERM and shares globals; as a child it can be killed at any
moment, because nothing that matters depends on it: faults, leases and times are the control plane's.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.chaos.experiment import Walk
from controlplane.errors import ExperimentError

CHILD_GRACE_S = 5.0


class ChaosToolkit:
    """Starts `chaos run` with the way back to this control plane in its environment."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token

    async def walk(self, experiment: Path, drill_id: str, journal: Path, limit_s: float) -> Walk:
        """Run an experiment to its end, or to the limit.

        Args:
            experiment: the experiment's file.
            drill_id: the drill the extension acts for.
            journal: where Chaos Toolkit writes its journal; its log goes beside it.
            limit_s: seconds after which the child is killed.

        Returns:
            What the journal says; nothing that this method returns is trusted for safety.

        Raises:
            ExperimentError: when Chaos Toolkit cannot be started.
        """
        environment = {
            **os.environ,
            "CONTROLPLANE_URL": self._url,
            "CONTROLPLANE_TOKEN": self._token,
            "CONTROLPLANE_DRILL": drill_id,
        }
        log = journal.with_suffix(".log")
        command = (sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file",
                   "--settings", os.devnull, "run",
                   "--journal-path", str(journal), str(experiment))  # fmt: skip
        with log.open("wb") as output:
            try:
                child = await asyncio.create_subprocess_exec(
                    *command, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise ExperimentError("cannot start Chaos Toolkit", str(error), "install `chaostoolkit`") from error
            try:
                async with asyncio.timeout(limit_s):
                    await child.wait()
            except TimeoutError:
                pass
            finally:
                await _end(child)
        return read_journal(journal)


async def _end(child: asyncio.subprocess.Process) -> None:
    """Make sure the child and whatever it started are gone."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if child.returncode is not None:
            return
        os.killpg(child.pid, sign)
        try:
            async with asyncio.timeout(CHILD_GRACE_S):
                await child.wait()
        except TimeoutError:
            continue


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
