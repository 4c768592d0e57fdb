"""Drills: what is planned, what was proven, what would be broken; one that runs, and the ways to stop it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from controlplane.chaos.drill import Drill, Event, Halt, Outcome
from controlplane.chaos.fault import Lease
from controlplane.chaos.redundancy import spell_preview
from controlplane.chaos.safety import Refusal
from controlplane.chaos.score import Month, months
from controlplane.errors import UsageError
from controlplane.flows.standing import Standing
from controlplane.render.reports.drill import html_report
from controlplane.web.frame import Sheet, add_page, frame_of, report_sheet
from controlplane.web.page import ScheduledDrill
from controlplane.web.pages.forms import Question, ask, done, fields_of, person, wrong_why
from controlplane.web.pages.ports import ConsolePorts, ExperimentLine

LISTED = 50
MONTHS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class DrillsView:
    """Everything on the list's page."""

    standing: Standing
    now: datetime
    version: str
    halt: Halt | None
    plan: tuple[ScheduledDrill, ...]
    drills: tuple[Drill, ...]
    months: tuple[Month, ...]
    experiments: tuple[ExperimentLine, ...]

    @property
    def running(self) -> Drill | None:
        """The drill that runs; there is never more than one."""
        return next((drill for drill in self.drills if drill.outcome is Outcome.RUNNING), None)

    def last(self, experiment: str) -> Drill | None:
        """Return the newest drill of an experiment."""
        return next((drill for drill in self.drills if drill.experiment == experiment), None)


@dataclass(frozen=True, slots=True)
class DrillView:
    """Everything on the page of one drill."""

    standing: Standing
    now: datetime
    version: str
    drill: Drill
    events: tuple[Event, ...]
    leases: tuple[Lease, ...]

    @property
    def runs(self) -> bool:
        """Whether it still runs."""
        return self.drill.outcome is Outcome.RUNNING


def drills_sheet(view: DrillsView) -> Sheet:
    """Make the list's page."""
    service = view.standing.service
    return Sheet("_drilling.html", f"Drills · {service} · controlplane", view, service, "/drills")


def drill_sheet(view: DrillView) -> Sheet:
    """Make the page of one drill."""
    title = f"{view.drill.outcome}: {view.drill.experiment} · {view.standing.service} · controlplane"
    return Sheet("_drill.html", title, view, view.standing.service, "/drills", moves=view.runs)


def add_drill_pages(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the pages; what is asked of drills comes before a drill is asked for by its id."""

    async def every(_: Request) -> Sheet:
        drills = await ports.drills(LISTED)
        return drills_sheet(
            DrillsView(
                ports.standing(), ports.now(), ports.version, await ports.halt(), ports.plan(), drills,
                months(drills)[:MONTHS_SHOWN], await ports.experiments(),
            )
        )  # fmt: skip

    async def live(request: Request) -> Sheet:
        drill = await _the_drill(ports, request.path_params["drill_id"])
        view = DrillView(
            ports.standing(), ports.now(), ports.version, drill, await ports.events(drill.id),
            await ports.leases(drill.id),
        )  # fmt: skip
        return drill_sheet(view)

    add_page(app, "/drills", every)
    _add_halt(app, ports)
    _add_run(app, ports)
    add_page(app, "/drills/{drill_id}/live", live)
    _add_abort(app, ports)

    @app.get("/drills/{drill_id}", include_in_schema=False)
    async def report(request: Request, drill_id: str) -> Response:
        drill = await _the_drill(ports, drill_id)
        if drill.outcome is Outcome.RUNNING:
            return RedirectResponse(f"/drills/{drill.id}/live", 303)
        service, made = ports.standing().service, html_report(await ports.report(drill))
        title = f"{drill.outcome}: {drill.experiment} · {service} · controlplane"
        sheet = report_sheet(made, title, ports.now(), ports.version, service, "/drills")
        return HTMLResponse(sheet.page(frame_of(request)))


async def _the_drill(ports: ConsolePorts, drill_id: str) -> Drill:
    drill = await ports.drill(drill_id)
    if drill is None:
        raise HTTPException(404, f"there is no drill {drill_id}")
    return drill


# --- halt and resume --------------------------------------------------------------------------------------------------


def _add_halt(app: FastAPI, ports: ConsolePorts) -> None:
    async def question(word: str) -> Question:
        halt = await ports.halt()
        running = [d for d in await ports.drills(LISTED) if d.outcome is Outcome.RUNNING]
        facts = _halting(running) if word == "halt" else _resuming(halt)
        nothing = "drills are halted already" if word == "halt" and halt else (
            "drills are not halted" if word == "resume" and not halt else ""
        )  # fmt: skip
        heading, button = ("Halt every drill", "Halt and heal everything") if word == "halt" else (
            "Let drills start again", "Resume"
        )  # fmt: skip
        return Question(
            ports.now(), ports.version, heading, f"/drills/{word}", button, "/drills", facts,
            (nothing,) if nothing else (), asks_why=word == "halt", dangerous=word == "halt",
        )  # fmt: skip

    @app.get("/drills/halt", include_in_schema=False)
    async def halting(request: Request) -> HTMLResponse:
        return ask(request, await question("halt"), ports.standing().service, "/drills")

    @app.get("/drills/resume", include_in_schema=False)
    async def resuming(request: Request) -> HTMLResponse:
        return ask(request, await question("resume"), ports.standing().service, "/drills")

    @app.post("/drills/halt", include_in_schema=False)
    async def halt(request: Request) -> Response:
        why = (await fields_of(request)).get("why", "")
        wrong = wrong_why(why)
        if wrong:
            again = replace(await question("halt"), why=why, wrong=wrong)
            return ask(request, again, ports.standing().service, "/drills", 422)
        await ports.desk.halt(why, person(request))
        return done("/drills", "halt")

    @app.post("/drills/resume", include_in_schema=False)
    async def resume(request: Request) -> Response:
        await ports.desk.resume(person(request))
        return done("/drills", "resume")


def _halting(running: Sequence[Drill]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    stops = tuple(f"drill {drill.experiment} ({drill.id})" for drill in running) or ("no drill: none runs",)
    return (
        ("Stops", stops),
        ("Ends", ("every fault in force, at once",)),
        ("Blocks", ("every drill, scheduled ones too, until somebody resumes",)),
    )


def _resuming(halt: Halt | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    facts: list[tuple[str, tuple[str, ...]]] = []
    if halt:
        facts.append(("Halted", (f"by {halt.by}: {halt.why}",)))
    return (*facts, ("Then", ("drills start again, those of the schedule by themselves",)))


# --- run and abort ----------------------------------------------------------------------------------------------------


def _add_run(app: FastAPI, ports: ConsolePorts) -> None:
    async def question(experiment: str) -> Question:
        try:
            found, asked = await ports.desk.preview(experiment)
        except UsageError as error:
            raise HTTPException(404, f"{error.what}: {error.why}") from error
        closed = asked.reasons if isinstance(asked, Refusal) else ()
        facts: list[tuple[str, tuple[str, ...]]] = [("It would", spell_preview(found))]
        if not isinstance(asked, Refusal):
            facts.append(("Gates, all open", asked.seen))
        return Question(
            ports.now(), ports.version, f"Run {experiment}", f"/drills/run/{experiment}", "Break it now", "/drills",
            tuple(facts), tuple(f"Gate closed: {reason}" for reason in closed),
        )  # fmt: skip

    @app.get("/drills/run/{experiment}", include_in_schema=False)
    async def asked(request: Request, experiment: str) -> HTMLResponse:
        return ask(request, await question(experiment), ports.standing().service, "/drills")

    @app.post("/drills/run/{experiment}", include_in_schema=False)
    async def run(request: Request, experiment: str) -> Response:
        why = (await fields_of(request)).get("why", "")
        wrong = wrong_why(why)
        if wrong:
            again = replace(await question(experiment), why=why, wrong=wrong)
            return ask(request, again, ports.standing().service, "/drills", 422)
        try:
            started = await ports.desk.start(experiment, person(request))
        except UsageError as error:
            raise HTTPException(404, f"{error.what}: {error.why}") from error
        if isinstance(started, Refusal):
            reasons = "; ".join(started.reasons)
            again = replace(await question(experiment), why=why, wrong=f"The gates refused: {reasons}.")
            return ask(request, again, ports.standing().service, "/drills", 409)
        return done(f"/drills/{started.id}/live", "started")


def _add_abort(app: FastAPI, ports: ConsolePorts) -> None:
    async def question(drill: Drill) -> Question:
        leases = [lease for lease in await ports.leases(drill.id) if lease.open]
        faults = tuple(f"{lease.kind} on {lease.endpoint.name}" for lease in leases) or ("no fault: none is in force",)
        over = "" if drill.outcome is Outcome.RUNNING else f"the drill is over: {drill.outcome}"
        return Question(
            ports.now(), ports.version, f"Abort {drill.experiment}", f"/drills/{drill.id}/abort", "Abort the drill",
            f"/drills/{drill.id}/live", (("Ends", faults), ("Says", ("its outcome is `aborted`: it proves nothing",))),
            (over,) if over else (),
        )  # fmt: skip

    @app.get("/drills/{drill_id}/abort", include_in_schema=False)
    async def asked(request: Request, drill_id: str) -> HTMLResponse:
        drill = await _the_drill(ports, drill_id)
        return ask(request, await question(drill), ports.standing().service, "/drills")

    @app.post("/drills/{drill_id}/abort", include_in_schema=False)
    async def abort(request: Request, drill_id: str) -> Response:
        drill = await _the_drill(ports, drill_id)
        why = (await fields_of(request)).get("why", "")
        wrong, status = wrong_why(why), 422
        if not wrong:
            told = await ports.desk.abort(drill.id, why, person(request))
            if not isinstance(told, Refusal):
                return done(f"/drills/{drill.id}/live", "abort")
            wrong, status = f"It was refused: {'; '.join(told.reasons)}.", 409
        again = replace(await question(drill), why=why, wrong=wrong)
        return ask(request, again, ports.standing().service, "/drills", status)
