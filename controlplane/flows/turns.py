"""Who is being looked at now: one look of a probe at an endpoint at a time.

Used by `observe`, which takes the looks in. What is kept of a probe and an endpoint is one small object, made once: a
fleet is looked at thousands of times a second.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from functools import partial

from controlplane.fleet.model import Endpoint
from controlplane.flows.records import EndpointRecord
from controlplane.probes.probe import Failure, Look, Probe, StartedProbe

Report = Callable[[Look], None]


class _Turn:
    """One probe's looks at one endpoint."""

    __slots__ = ("busy", "report", "start")

    busy: bool
    """A look has begun and not ended."""
    start: Callable[[Endpoint, Report], None]
    report: Report


class Turns:
    """Starts looks, and hands on what they found."""

    def __init__(
        self,
        take: Callable[[Look], EndpointRecord | None],
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
        skipped: Callable[[str], None],
    ) -> None:
        """Take whom it works with.

        Args:
            take: takes a look in; returns what is known of its endpoint.
            spawn: starts a task in the process's own group.
            skipped: told the probe of which a look was left out.
        """
        self._take = take
        self._spawn = spawn
        self._skipped = skipped
        self._turns: dict[tuple[str, str], _Turn] = {}

    def look(self, probe: Probe, endpoint: Endpoint) -> None:
        """Look at an endpoint once; when its last look has not ended, this one is left out and counted."""
        turn = self._turns.get((probe.name, endpoint.name))
        if turn is None:
            turn = self._turns[probe.name, endpoint.name] = self._turn(probe)
        if turn.busy:
            self._skipped(probe.name)
            return
        turn.busy = True
        turn.start(endpoint, turn.report)

    def keep(self, endpoints: Collection[str]) -> None:
        """Forget every endpoint but these."""
        self._turns = {key: turn for key, turn in self._turns.items() if turn.busy or key[1] in endpoints}

    def _turn(self, probe: Probe) -> _Turn:
        turn = _Turn()
        turn.busy = False
        turn.report = partial(self._looked, probe, turn)
        turn.start = probe.start if isinstance(probe, StartedProbe) else partial(self._in_a_task, probe, turn)
        return turn

    def _in_a_task(self, probe: Probe, turn: _Turn, endpoint: Endpoint, _: Report) -> None:
        """Look by a probe that has to be awaited, in a task of its own: one that is slow delays no other."""
        self._spawn(self._look_once(probe, turn, endpoint))

    async def _look_once(self, probe: Probe, turn: _Turn, endpoint: Endpoint) -> None:
        try:
            self._take(await probe.look(endpoint))
        finally:
            turn.busy = False

    def _looked(self, probe: Probe, turn: _Turn, look: Look) -> None:
        turn.busy = False
        record = self._take(look)
        # An endpoint that does not answer is asked again at once: a hang is then known long before the next turns come.
        if look.failure is Failure.TIMEOUT and look.says_alive and record and not record.down:
            self.look(probe, look.endpoint)
