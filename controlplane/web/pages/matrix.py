"""The matrix: where its rows stand and why, what they promise and what was measured, and the levers people may move."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from controlplane.chaos.drill import Drill
from controlplane.degradation.actuator import Pull, RoutePlan, route
from controlplane.degradation.instruction import Instruction, Kind, Refused
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level, signals_of
from controlplane.fleet.model import PRIMARY
from controlplane.flows.people import Said
from controlplane.flows.standing import RowStanding, Standing
from controlplane.policy import quantity
from controlplane.slo.threshold import Threshold
from controlplane.web.console import endpoints_of
from controlplane.web.frame import Sheet, add_page
from controlplane.web.numbers import duration, ratio
from controlplane.web.pages.forms import Question, ask, done, fields_of, person, wrong_why
from controlplane.web.pages.ports import ConsolePorts
from controlplane.web.runbooks import Reading
from controlplane.web.words import action_words, split_words

LONGEST_PIN = timedelta(days=30)
"""A pin that nobody remembers is a matrix that does not work."""
SAID_SHOWN = 20
IN_FORCE = (Phase.ENGAGING, Phase.ENGAGED, Phase.RELEASING)

Facts = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Lever:
    """One thing that people may tell the matrix."""

    kind: Kind
    heading: str
    button: str
    ends: bool = False
    """Whether it ends what was said before."""
    whole: bool = False
    """Whether it is about the whole matrix (level `none`)."""
    dangerous: bool = True


LEVERS: Mapping[str, Lever] = {
    "pin": Lever(Kind.PIN, "Pin {}", "Pin it"),
    "unpin": Lever(Kind.PIN, "End the pin of {}", "End the pin", ends=True),
    "approve": Lever(Kind.APPROVE, "Approve {}", "Approve"),
    "refuse": Lever(Kind.REFUSE, "Refuse {}", "Refuse", dangerous=False),
    "release": Lever(Kind.RELEASE, "Release {}", "Give the traffic back"),
    "brake": Lever(Kind.BRAKE, "Pull the brake", "Pull the brake", whole=True),
    "unbrake": Lever(Kind.BRAKE, "Let go of the brake", "Let go", ends=True, whole=True),
}


@dataclass(frozen=True, slots=True)
class MatrixView:
    """Everything on the page."""

    standing: Standing
    now: datetime
    version: str
    drills: tuple[Drill, ...]
    readings: Mapping[str, tuple[Reading, ...]]
    """What the trigger of each row looks at, now."""
    said: tuple[Instruction, ...]
    """What people have told the matrix lately."""


def readings_of_rows(standing: Standing, thresholds: Mapping[str, Threshold]) -> dict[str, tuple[Reading, ...]]:
    """Return what each row's trigger looks at, as the primary pool shows it now."""
    primary = next((pool for pool in standing.pools if pool.name == PRIMARY), None)
    if primary is None:
        return {}
    return {
        row.row.level.value: tuple(
            Reading(PRIMARY, seen, thresholds.get(name))
            for name in signals_of(row.row.when)
            if (seen := primary.verdict.signal(name)) is not None
        )
        for row in standing.rows
    }


def offered(row: RowStanding, standing: Standing) -> tuple[str, ...]:
    """Return the levers of a row that mean something now."""
    pinned = any(pin.level is row.row.level for pin in standing.pins)
    names = ["unpin" if pinned else "pin"]
    if row.awaits_approval:
        names += ["approve", "refuse"]
    elif row.phase is Phase.PENDING:
        names += ["refuse"]
    if row.phase is Phase.ENGAGED and not pinned:
        names += ["release"]
    return tuple(names)


def whole_offered(standing: Standing) -> tuple[str, ...]:
    """Return the levers on the whole matrix that mean something now."""
    pinned = any(pin.level is Level.NONE for pin in standing.pins)
    return ("unbrake" if standing.braked else "brake", "unpin" if pinned else "pin")


def matrix_sheet(view: MatrixView) -> Sheet:
    """Make the page."""
    values = {"LEVERS": LEVERS, "offered": offered, "whole_offered": whole_offered}
    service = view.standing.service
    return Sheet("_rows.html", f"Matrix · {service} · controlplane", view, service, "/matrix", values=values)


# --- what would move --------------------------------------------------------------------------------------------------


def pulls(standing: Standing) -> dict[Level, Pull]:
    """Return what the rows in force do to the traffic now."""
    return {
        row.row.level: Pull(row.row.level, row.row.do, 1.0 - row.given_back)
        for row in standing.rows
        if row.phase in IN_FORCE
    }


def preview(standing: Standing, lever: Lever, level: Level) -> Facts:
    """Say what a lever would move, from where to where."""
    now, row = pulls(standing), next((r for r in standing.rows if r.row.level is level), None)
    before = route(tuple(now.values()))
    if lever.kind is Kind.BRAKE:
        return _whole(before, "Nothing engages or is given back by itself" if not lever.ends else
                      "Rows engage and are given back by themselves again, at their next evaluation")  # fmt: skip
    if row is None:
        return _whole(before, "Rows may begin again" if lever.ends else
                      "No row begins anything; what is in force stays until its trigger clears")  # fmt: skip
    does = ("The row", (action_words(row.row.do), f"it is {row.phase} now"))
    if lever.kind is Kind.REFUSE:
        return (does, ("Moves", ("nothing: the row is left alone until its trigger has cleared",)))
    if lever.ends:
        return (does, ("Moves", ("nothing now: the row follows its trigger again",)))
    if lever.kind is Kind.RELEASE:
        after = route([pull for at, pull in now.items() if at is not level])
        steps = row.row.release
        way = f"in steps of {', '.join(map(ratio, steps.steps))}, each watched for {duration(steps.hold)}"
        return (does, _traffic(before, after), ("How", (way,)))
    after = route([*(pull for at, pull in now.items() if at is not level), Pull(level, row.row.do)])
    return (does, _traffic(before, after), *_target(standing, row))


def _whole(before: RoutePlan, what: str) -> Facts:
    return (("Moves", (what,)), ("Traffic stays", (split_words(before),)))


def _traffic(before: RoutePlan, after: RoutePlan) -> tuple[str, tuple[str, ...]]:
    words = f"{split_words(before)} → {split_words(after)}"
    return "Traffic", (words, f"answers are marked with level {after.level}")


def _target(standing: Standing, row: RowStanding) -> Facts:
    """Say how the pool stands that would get the traffic."""
    pool = next((pool for pool in standing.pools if pool.name == row.row.target), None)
    if pool is None:
        return ()
    count = endpoints_of(pool).count
    lines = [f"pool {pool.name} is {pool.verdict.band}: {count['up']} of {len(pool.endpoints)} endpoints up"]
    lines += [f"held back now: {row.waits_for}"] if row.waits_for else []
    return (("The gate asks", tuple(lines)),)


# --- the routes -------------------------------------------------------------------------------------------------------


def add_matrix_page(app: FastAPI, ports: ConsolePorts) -> None:
    """Add the page and its levers."""

    async def make(_: Request) -> Sheet:
        overview = await ports.overview()
        readings = readings_of_rows(overview.standing, ports.thresholds)
        said = await ports.instructions(SAID_SHOWN)
        return matrix_sheet(MatrixView(overview.standing, overview.now, ports.version, overview.drills, readings, said))

    add_page(app, "/matrix", make)

    @app.get("/matrix/{level}/{lever}", include_in_schema=False)
    async def asked(request: Request, level: str, lever: str) -> HTMLResponse:
        return ask(request, _question(ports, *_found(level, lever)), ports.standing().service, "/matrix")

    @app.post("/matrix/{level}/{lever}", include_in_schema=False)
    async def told(request: Request, level: str, lever: str) -> Response:
        name, at = _found(level, lever)
        fields, service = await fields_of(request), ports.standing().service
        why, lasts = fields.get("why", ""), fields.get("for", "")
        wrong, until = wrong_why(why), None
        if not wrong and lasts:
            until, wrong = _lasts(lasts)
        if wrong:
            again = replace(_question(ports, name, at), why=why, lasts=lasts, wrong=wrong)
            return ask(request, again, service, "/matrix", 422)
        refused = await _tell(ports, LEVERS[name], Said(LEVERS[name].kind, at, person(request), why, until))
        if refused:
            again = replace(_question(ports, name, at), why=why, lasts=lasts, wrong=f"It was refused: {refused}.")
            return ask(request, again, service, "/matrix", 409)
        return done("/matrix", name)


async def _tell(ports: ConsolePorts, lever: Lever, said: Said) -> str:
    """Pass on what a person says; return why it cannot be followed, or nothing."""
    if lever.ends:
        told = await ports.end(lever.kind, said.level, said.who, said.why)
    else:
        told = await ports.instruct(said)
    return told.why if isinstance(told, Refused) else ""


def _found(level: str, lever: str) -> tuple[str, Level]:
    """Read a lever's address.

    Raises:
        HTTPException: when there is no such lever.
    """
    found = LEVERS.get(lever)
    if found is None or level not in list(Level) or (found.whole and level != Level.NONE):
        raise HTTPException(404, "there is no such lever")
    if level == Level.NONE and not found.whole and found.kind is not Kind.PIN:
        raise HTTPException(404, "there is no such lever")
    return lever, Level(level)


def _question(ports: ConsolePorts, name: str, level: Level) -> Question:
    lever, standing = LEVERS[name], ports.standing()
    refusal = _nothing_to_end(standing, lever, level) if lever.ends else ports.refusal(lever.kind, level)
    whom = "no row" if level is Level.NONE else level.value
    return Question(
        ports.now(), ports.version, lever.heading.format(whom), f"/matrix/{level}/{name}", lever.button, "/matrix",
        preview(standing, lever, level), (refusal,) if refusal else (),
        asks_how_long=name == "pin", dangerous=lever.dangerous,
    )  # fmt: skip


def _nothing_to_end(standing: Standing, lever: Lever, level: Level) -> str:
    if lever.kind is Kind.BRAKE:
        return "" if standing.braked else "the brake is not on"
    return "" if any(pin.level is level for pin in standing.pins) else f"nobody has pinned {level}"


def _lasts(text: str) -> tuple[timedelta | None, str]:
    """Read how long a pin holds; the second is what is wrong with it."""
    try:
        lasts = quantity.duration(text)
    except ValueError:
        return None, f"{text} is no length of time: write one such as 30m."
    if not timedelta(0) < lasts <= LONGEST_PIN:
        return None, "A pin holds from a moment to 30 days."
    return lasts, ""
