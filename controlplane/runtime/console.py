"""What the console's pages are made of, joined: the plane's books, its desk, its experiments as files."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import controlplane
from controlplane.clock import utcnow
from controlplane.errors import ControlplaneError
from controlplane.flows import people
from controlplane.runtime.experiments import find_experiment
from controlplane.runtime.wiring import Plane
from controlplane.security.chain import AuditBook
from controlplane.web.page import Overview, ScheduledDrill
from controlplane.web.pages.ports import ConsolePorts, ExperimentLine

DATES = 3
"""How many of each plan's next dates are shown."""


def console_ports(
    plane: Plane, overview: Callable[[], Awaitable[Overview]], audit: AuditBook, experiments: Path
) -> ConsolePorts:
    """Join what the pages ask.

    Args:
        plane: the control plane.
        overview: gathers what is on the front page.
        audit: the audit log.
        experiments: the directory of experiments.
    """
    books, service = plane.books, plane.loaded.policy.service

    async def listed() -> tuple[ExperimentLine, ...]:
        pools = {pool.name: len(pool.endpoints) for pool in plane.standing().pools}
        return await asyncio.to_thread(_experiments, experiments, pools)

    def plan() -> tuple[ScheduledDrill, ...]:
        coming = plane.desk.next_due(utcnow(), DATES)
        return tuple(ScheduledDrill(name, experiment, at) for at, name, p in coming for experiment in p.experiments)

    return ConsolePorts(
        overview=overview,
        standing=plane.standing,
        thresholds=plane.loaded.policy.thresholds,
        recorded=plane.recorder.points,
        instruct=partial(people.instruct, plane.people),
        end=partial(people.end, plane.people),
        refusal=plane.people.refusal,
        instructions=lambda limit: books.instructions.recent(service, limit),
        desk=plane.desk,
        plan=plan,
        experiments=listed,
        drills=books.drills.recent,
        drill=books.drills.get,
        events=books.drills.events,
        leases=books.leases.of_drill,
        report=plane.report,
        halt=books.halts.current,
        audit=audit,
        now=utcnow,
        version=controlplane.__version__,
    )


def _experiments(directory: Path, pools: dict[str, int]) -> tuple[ExperimentLine, ...]:
    """Read every experiment; one that cannot be run says why."""
    lines = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            found, _ = find_experiment(directory, path.stem, pools)
        except ControlplaneError as error:
            lines.append(ExperimentLine(path.stem, path.stem, "", "", problem=f"{error.what}: {error.why}"))
        else:
            lines.append(ExperimentLine(found.name, found.title, found.row, found.blast_radius, found.description))
    return tuple(lines)
