"""The console's pages, drawn from plain values; called by `app`, which fetches the values and sends the pages.

Pure apart from reading its templates once, when the module is imported: `view.now` is the only clock. Every text
that people or servers wrote is escaped by Jinja2's autoescape, and nothing in a page is inline script or style, so
the pages work under `CONTENT_SECURITY_POLICY`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.degradation.actuator import Receipt, ReceiptState
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level, Mode
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.flows.standing import EndpointStanding, PoolStanding, RowStanding, Standing
from controlplane.render.reports import charts
from controlplane.render.wording import page_name
from controlplane.slo.threshold import SEVERITY, Band
from controlplane.slo.verdict import Evidence
from controlplane.web.diagram import machine_svg
from controlplane.web.numbers import duration, ratio, reading
from controlplane.web.page import IncidentView
from controlplane.web.words import (
    action_words,
    ago,
    beside_usual,
    bounds,
    breakable,
    budget_words,
    headline,
    instant,
    moment,
    primary_band,
    split_words,
    trigger_words,
)

CHART_TEMPLATES = Path(charts.__file__).parents[1] / "templates"
"""Charts are drawn by the same template in reports and here."""

STATIC_DIR = Path(__file__).parent / "static"
"""Served under `/static` by `app`."""

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
"""The header the pages are made for."""

STRIP = (Phase.IDLE, Phase.PENDING, Phase.ENGAGING, Phase.ENGAGED, Phase.RELEASING)
"""A row's way through its phases; `failed` stands beside the way, not on it."""

TIMED = tuple(phase for phase in DrillPhase if phase is not DrillPhase.FAULT)
"""The moments a drill measures from its fault."""

USER_SIGNALS = ("availability", "error_rate", "latency_p99", "request_rate")
"""What users feel: read at the gateway and shown as figures at the top."""

ENDPOINTS_UNFOLDED = 12
"""A pool with more endpoints than this shows those that are not up, and folds the others away."""

DOWN_SHOWN = 50
"""When a whole cluster is gone, no page lists more; the fleet's page has them all."""

_ROLES = (PRIMARY, "standby", "base", "cache")
_OUTCOME_TONES = {
    Outcome.RUNNING: "info",
    Outcome.PASSED: "ok",
    Outcome.FAILED: "breach",
    Outcome.INVALID: "warn",
    Outcome.REFUSED: "unknown",
    Outcome.ABORTED: "warn",
}


class Clocked(Protocol):
    """What any page is made of: values of one moment."""

    @property
    def now(self) -> datetime:
        """The page's clock; ages are counted from it."""

    @property
    def version(self) -> str:
        """Ours; it makes browsers ask anew for style and script."""


class Stands(Clocked, Protocol):
    """What a page about the service is made of."""

    @property
    def standing(self) -> Standing:
        """How the service stands."""


class Proves(Stands, Protocol):
    """What a page that shows promises is made of."""

    @property
    def drills(self) -> tuple[Drill, ...]:
        """Drills, the newest first."""


# --- choices the templates make ---------------------------------------------------------------------------------------


def tone(view: Stands) -> str:
    """Return the banner's class: the level in force, or how much to trust that there is none."""
    if view.standing.level is not Level.NONE:
        return f"level-{view.standing.level.lower()}"
    return "level-none" if primary_band(view.standing) is Band.OK else "level-watch"


@dataclass(frozen=True, slots=True)
class Segment:
    """One pool's part of the traffic bar."""

    pool: str
    weight: int
    """Whole percent."""
    start: int
    """Where it begins on the bar, in percent."""
    role: str
    """Its colour's class."""


def segments(view: Stands) -> tuple[Segment, ...]:
    """Lay the pools' weights end to end; pools that no lever weighs are left out."""
    laid: list[Segment] = []
    start = 0
    for pool in view.standing.pools:
        if pool.weight is not None:
            laid.append(Segment(pool.name, pool.weight, start, pool.name if pool.name in _ROLES else "other"))
            start += pool.weight
    return tuple(laid)


def user_figures(view: Stands) -> tuple[Evidence, ...]:
    """Return what users feel: the gateway's evidence, or the primary's where no gateway is watched."""
    pools = {pool.name: pool for pool in view.standing.pools}
    seen = pools.get(GATEWAY_POOL) or pools.get(PRIMARY)
    found = {name: seen.verdict.signal(name) if seen else None for name in USER_SIGNALS}
    return tuple(e or Evidence(name, None, Band.UNKNOWN, reason="not looked at yet") for name, e in found.items())


def figures_from(view: Stands) -> str:
    """Return the name of the pool that `user_figures` reads."""
    names = [pool.name for pool in view.standing.pools]
    return GATEWAY_POOL if GATEWAY_POOL in names else PRIMARY


def restored_s(drill: Drill) -> float | None:
    """Return the seconds from detected to verified, which is what the objective promises."""
    detected, verified = drill.phases.get(DrillPhase.DETECTED), drill.phases.get(DrillPhase.VERIFIED)
    return (verified - detected).total_seconds() if detected and verified else None


def last_proof(view: Proves, level: str) -> Drill | None:
    """Return the newest drill that measured a row, or None when none has."""
    return next((d for d in view.drills if d.row == level and restored_s(d) is not None), None)


def receipt_s(receipt: Receipt) -> float | None:
    """Return the seconds from detected to verified of one action."""
    verified = receipt.times.get(ReceiptState.VERIFIED)
    return (verified - receipt.detected_at).total_seconds() if verified else None


def open_first(incidents: Sequence[IncidentView]) -> list[IncidentView]:
    """Put open incidents on top; otherwise keep the order, newest first."""
    return sorted(incidents, key=lambda item: not item.incident.open)


def target_band(view: Stands, pool: str) -> Band:
    """Return the verdict on the pool a row would use."""
    return next((p.verdict.band for p in view.standing.pools if p.name == pool), Band.UNKNOWN)


@dataclass(frozen=True, slots=True)
class MatrixLine:
    """One line of the matrix: a row that is armed, or the reason why it is not."""

    level: str
    standing: RowStanding | None
    reason: str = ""


def matrix_lines(view: Stands) -> list[MatrixLine]:
    """Put armed and unarmed rows together, the worst first."""
    armed = [MatrixLine(row.row.level, row) for row in view.standing.rows]
    unarmed = [MatrixLine(level, None, reason) for level, reason in view.standing.not_armed.items()]
    return sorted((*armed, *unarmed), key=lambda line: line.level)


def phases_of(view: Stands) -> dict[str, Phase]:
    """Return where each row stands."""
    return {row.row.level.value: row.phase for row in reversed(view.standing.rows)}


@dataclass(frozen=True, slots=True)
class Unknowns:
    """Signals that are unknown for one and the same reason."""

    signals: tuple[str, ...]
    reason: str
    source: str


def unknowns(evidence: Sequence[Evidence]) -> tuple[Unknowns, ...]:
    """Gather the signals that are unknown by their reason, so that one missing exporter is one line."""
    groups: dict[tuple[str, str], list[str]] = {}
    for seen in evidence:
        if _is_unknown(seen):
            groups.setdefault((seen.reason, seen.source), []).append(seen.signal)
    return tuple(Unknowns(tuple(signals), reason, source) for (reason, source), signals in groups.items())


def known(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Return the rest of the evidence."""
    return tuple(seen for seen in evidence if not _is_unknown(seen))


def _is_unknown(seen: Evidence) -> bool:
    return seen.band is Band.UNKNOWN and reading(seen.value, seen.signal) == "unknown"


WORTH_SHOWING = 4
"""So many signals of a pool stand on its card; the rest is on its own page."""


def telling(evidence: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Return the few signals that tell most of a pool: the worst bands first, else in their order."""
    worst = sorted(known(evidence), key=lambda seen: -SEVERITY[seen.band])
    return tuple(worst[:WORTH_SHOWING])


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A pool's endpoints as they are shown."""

    shown: tuple[EndpointStanding, ...]
    folded: tuple[EndpointStanding, ...]
    """Those that are up, when there are too many to look at."""
    count: Mapping[str, int]
    """How many are `up`, `down` and `unknown`."""
    down: tuple[EndpointStanding, ...]
    """Those that are down, `DOWN_SHOWN` of them."""


def endpoint_state(endpoint: EndpointStanding) -> str:
    """Return `up`, `down` or, until a probe has looked, `unknown`."""
    return "unknown" if endpoint.up is None else "up" if endpoint.up else "down"


def endpoints_of(pool: PoolStanding) -> Endpoints:
    """Choose which endpoints of a pool to show and which to fold away."""
    states = [endpoint_state(e) for e in pool.endpoints]
    count = {state: states.count(state) for state in ("up", "down", "unknown")}
    down = tuple(e for e in pool.endpoints if e.up is False)[:DOWN_SHOWN]
    if len(pool.endpoints) <= ENDPOINTS_UNFOLDED:
        return Endpoints(pool.endpoints, (), count, down)
    down_first = sorted((e for e in pool.endpoints if not e.up), key=lambda e: e.up is None)
    return Endpoints(tuple(down_first)[:DOWN_SHOWN], tuple(e for e in pool.endpoints if e.up), count, down)


# --- the environment --------------------------------------------------------------------------------------------------


def _at_now(write: Callable[[datetime, datetime], Markup]) -> Callable[[Context, datetime | None], str]:
    """Make a template filter of a function that needs the page's clock; None comes out as `unknown`."""

    @pass_context
    def draw(context: Context, at: datetime | None) -> str:
        return "unknown" if at is None else write(at, context["view"].now)

    return draw


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", CHART_TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "duration": duration,
        "ratio": ratio,
        "reading": reading,
        "breakable": breakable,
        "moment": _at_now(moment),
        "instant": _at_now(instant),
        "ago": _at_now(ago),
    }
    words = (action_words, beside_usual, bounds, budget_words, headline, page_name, split_words, trigger_words)
    measures = (last_proof, receipt_s, restored_s, segments, target_band, tone)
    choices = (
        endpoint_state, endpoints_of, figures_from, known, machine_svg, matrix_lines, open_first, phases_of, telling,
        unknowns, user_figures,
    )  # fmt: skip
    environment.globals |= {function.__name__: function for function in (*words, *measures, *choices)}
    environment.globals |= {
        "GATEWAY": GATEWAY_POOL,
        "plot": charts,
        "STRIP": STRIP,
        "TIMED": TIMED,
        "OUTCOME_TONES": _OUTCOME_TONES,
        "Level": Level,
        "Mode": Mode,
        "Outcome": Outcome,
        "Phase": Phase,
    }
    return environment


_ENVIRONMENT = _environment()


def draw(template: str, **values: object) -> str:
    """Draw a page from a template; filters that tell ages need a `view` with a `now` among its values."""
    return _ENVIRONMENT.get_template(template).render(**values)
