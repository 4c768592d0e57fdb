"""What the console's pages are made of, joined: the plane's books, its desk, its experiments as files."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import controlplane
from controlplane.chaos.experiment import ExperimentFile
from controlplane.clock import utcnow
from controlplane.flows import people
from controlplane.runtime.experiments import as_error
from controlplane.runtime.reading import experiments_of
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

    read = experiments_of(experiments, plane.standing)

    async def listed() -> tuple[ExperimentLine, ...]:
        return tuple(_line(file) for file in await read())

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
        plan=partial(planned, plane, DATES),
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


def planned(plane: Plane, dates: int = 1) -> tuple[ScheduledDrill, ...]:
    """Return what is scheduled on the next dates of each plan, the soonest first."""
    coming = plane.desk.next_due(utcnow(), dates)
    return tuple(ScheduledDrill(name, experiment, at) for at, name, plan in coming for experiment in plan.experiments)


def _line(file: ExperimentFile) -> ExperimentLine:
    """Spell an experiment out; one that cannot be run says why."""
    found = file.experiment
    if found is None:
        wrong = as_error(file.problems)
        return ExperimentLine(file.name, file.name, "", "", problem=f"{wrong.what}: {wrong.why}")
    return ExperimentLine(found.name, found.title, found.row, found.blast_radius, found.description)
