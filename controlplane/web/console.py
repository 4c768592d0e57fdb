"""The console's pages, drawn from plain values; called by `app`, which fetches the values and sends the pages.

Pure apart from reading its templates once, when the module is imported: `view.now` is the only clock. Every text
that people or servers wrote is escaped by Jinja2's autoescape, and nothing in a page is inline script or style, so
the pages work under `CONTENT_SECURITY_POLICY`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from controlplane.chaos.drill import Drill, DrillPhase, Outcome
from controlplane.degradation.action import Action, ServeFromCache, SwitchPool, UsePool, pool_of, spell_actions
from controlplane.degradation.actuator import Receipt, ReceiptState, RoutePlan
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import AlertFires, AllOf, AnyOf, Condition, Level, Mode, Trigger
from controlplane.fleet.model import GATEWAY_POOL, PRIMARY
from controlplane.flows.standing import BudgetStanding, EndpointStanding, PoolStanding, RowStanding, Standing
from controlplane.render.reports import charts
from controlplane.render.wording import page_name
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence
from controlplane.web.diagram import machine_svg
from controlplane.web.numbers import duration, ratio, reading
from controlplane.web.page import IncidentView, Overview

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

_ROLES = (PRIMARY, "standby", "base", "cache")
_OUTCOME_TONES = {
    Outcome.RUNNING: "info",
    Outcome.PASSED: "ok",
    Outcome.FAILED: "breach",
    Outcome.INVALID: "warn",
    Outcome.REFUSED: "unknown",
    Outcome.ABORTED: "warn",
}


def overview_html(view: Overview, who: str = "", csrf: str = "") -> str:
    """Draw the whole front page.

    Args:
        view: everything on it; ages are counted from `view.now`.
        who: whose session it is; empty without one.
        csrf: what the page's scripts send back with whatever they ask for.

    Returns:
        A complete HTML document.
    """
    return draw("overview.html", view=view, standing=view.standing, who=who, csrf=csrf)


def overview_fragment(view: Overview) -> str:
    """Draw what changes: the `<main>` element that `console.js` puts in the place of the one it shows."""
    return draw("_main.html", view=view, standing=view.standing)


# --- numbers and times -----------------------------------------------------------------------------------------------


def bounds(evidence: Evidence) -> str:
    """Write the error bounds of a quantile, or nothing where the value is exact or not known."""
    if evidence.value is None or evidence.low is None or evidence.high is None:
        return ""
    return f"between {reading(evidence.low, evidence.signal)} and {reading(evidence.high, evidence.signal)}"


def breakable(name: str) -> Markup:
    """Let a long name with underscores wrap after one of them."""
    return Markup("_<wbr>").join(name.split("_"))


def moment(at: datetime, now: datetime) -> Markup:
    """Write a time as `<time>` in UTC, with the date when it is not today's."""
    at, now = at.astimezone(UTC), now.astimezone(UTC)
    text = f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at.day} {at:%b %Y %H:%M}"
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat(timespec="milliseconds"), text)


def instant(at: datetime, now: datetime) -> Markup:
    """Write a time as `moment` does, to the millisecond."""
    at = at.astimezone(UTC)
    day = "" if at.date() == now.astimezone(UTC).date() else f"{at.day} {at:%b %Y} "
    text = f"{day}{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="milliseconds"), text)


def ago(at: datetime, now: datetime) -> Markup:
    """Write how long ago, or in how long, as `<time class="ago">`; `console.js` keeps such texts current."""
    at = at.astimezone(UTC)
    seconds = (now - at).total_seconds()
    text = f"in {_rough(-seconds)}" if seconds <= -1 else f"{_rough(seconds)} ago"
    return Markup('<time class="ago" datetime="{}" title="{} UTC">{}</time>').format(
        at.isoformat(timespec="milliseconds"), f"{at:%Y-%m-%d %H:%M:%S}", text
    )


def _rough(seconds: float) -> str:
    """Write an age in whole seconds, minutes, hours or days."""
    whole = max(0, int(seconds))
    for name, size in (("d", 172_800), ("h", 7_200), ("min", 120)):
        if whole >= size:
            return f"{whole // {'d': 86_400, 'h': 3_600, 'min': 60}[name]} {name}"
    return f"{whole} s"


# --- words -----------------------------------------------------------------------------------------------------------


def action_words(actions: tuple[Action, ...]) -> str:
    """Say what a row does."""
    return ", then ".join(_one_action_words(action) for action in actions)


def _one_action_words(action: Action) -> str:
    if isinstance(action, SwitchPool):
        return f"Switch all primary traffic to {action.to}"
    if isinstance(action, ServeFromCache):
        return f"Answer primary traffic from {action.pool}"
    if isinstance(action, UsePool):
        return f"Send {ratio(action.share)} of primary traffic to {action.pool}"
    return spell_actions((action,))


def trigger_words(trigger: Trigger) -> tuple[str, ...]:
    """Say when a row trips: one text for each way it can."""
    if isinstance(trigger, AnyOf):
        return tuple(text for part in trigger.parts for text in trigger_words(part))
    if isinstance(trigger, AllOf):
        return (" and ".join(_inner_words(part) for part in trigger.parts),)
    if isinstance(trigger, AlertFires):
        return (f"alert {trigger.alert} fires",)
    return (_condition_words(trigger),)


def _inner_words(trigger: Trigger) -> str:
    ways = trigger_words(trigger)
    return ways[0] if len(ways) == 1 else f"({' or '.join(ways)})"


def _condition_words(condition: Condition) -> str:
    if condition.band is not None:
        text = f"{condition.signal} in {condition.band}"
    elif condition.above is not None:
        text = f"{condition.signal} at or above {reading(condition.above, condition.signal)}"
    else:
        text = f"{condition.signal} below {reading(condition.below, condition.signal)}"
    return f"{text} for {duration(condition.dwell)}" if condition.dwell else text


def split_words(plan: RoutePlan) -> str:
    """Say how a plan splits the traffic: `primary 50%, base 50%`."""
    parts = [f"{pool} {weight}%" for pool, weight in plan.weights.items() if weight]
    return ", ".join(parts) or "no traffic"


def headline(view: Overview) -> str:
    """Say in one sentence how the service stands."""
    standing = view.standing
    if standing.level is not Level.NONE:
        return f"{standing.level} in force{_in_force_words(view)}"
    band = primary_band(view)
    if band is Band.OK:
        return "Normal: the primary pool serves"
    if band is Band.UNKNOWN:
        return "No level in force, but the primary pool is unknown"
    return f"No level in force, but the primary pool is in {band}"


def _in_force_words(view: Overview) -> str:
    """Say what the level in force does, or how far it has been given back."""
    standing = next((r for r in view.standing.rows if r.row.level is view.standing.level), None)
    if standing is None:
        return ""
    if standing.phase is Phase.RELEASING:
        return f", being released: {ratio(standing.given_back)} of its traffic is given back"
    move = standing.row.move
    if move is None:
        return f": {spell_actions(standing.row.do)}"
    if isinstance(move, UsePool):
        return f": {ratio(move.share)} of primary traffic goes to {move.pool}"
    return f": all primary traffic goes to {pool_of(move)}"


# --- choices the templates make ---------------------------------------------------------------------------------------


def primary_band(view: Overview) -> Band:
    """Return the verdict on the primary pool; unknown when there is none."""
    return next((p.verdict.band for p in view.standing.pools if p.name == PRIMARY), Band.UNKNOWN)


def tone(view: Overview) -> str:
    """Return the banner's class: the level in force, or how much to trust that there is none."""
    if view.standing.level is not Level.NONE:
        return f"level-{view.standing.level.lower()}"
    return "level-none" if primary_band(view) is Band.OK else "level-watch"


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


def segments(view: Overview) -> tuple[Segment, ...]:
    """Lay the pools' weights end to end; pools that no lever weighs are left out."""
    laid: list[Segment] = []
    start = 0
    for pool in view.standing.pools:
        if pool.weight is not None:
            laid.append(Segment(pool.name, pool.weight, start, pool.name if pool.name in _ROLES else "other"))
            start += pool.weight
    return tuple(laid)


def user_figures(view: Overview) -> tuple[Evidence, ...]:
    """Return what users feel: the gateway's evidence, or the primary's where no gateway is watched."""
    pools = {pool.name: pool for pool in view.standing.pools}
    seen = pools.get(GATEWAY_POOL) or pools.get(PRIMARY)
    found = {name: seen.verdict.signal(name) if seen else None for name in USER_SIGNALS}
    return tuple(e or Evidence(name, None, Band.UNKNOWN, reason="not looked at yet") for name, e in found.items())


def figures_from(view: Overview) -> str:
    """Return the name of the pool that `user_figures` reads."""
    names = [pool.name for pool in view.standing.pools]
    return GATEWAY_POOL if GATEWAY_POOL in names else PRIMARY


def restored_s(drill: Drill) -> float | None:
    """Return the seconds from detected to verified, which is what the objective promises."""
    detected, verified = drill.phases.get(DrillPhase.DETECTED), drill.phases.get(DrillPhase.VERIFIED)
    return (verified - detected).total_seconds() if detected and verified else None


def last_proof(view: Overview, level: str) -> Drill | None:
    """Return the newest drill that measured a row, or None when none has."""
    return next((d for d in view.drills if d.row == level and restored_s(d) is not None), None)


def receipt_s(receipt: Receipt) -> float | None:
    """Return the seconds from detected to verified of one action."""
    verified = receipt.times.get(ReceiptState.VERIFIED)
    return (verified - receipt.detected_at).total_seconds() if verified else None


def open_first(incidents: Sequence[IncidentView]) -> list[IncidentView]:
    """Put open incidents on top; otherwise keep the order, newest first."""
    return sorted(incidents, key=lambda item: not item.incident.open)


def target_band(view: Overview, pool: str) -> Band:
    """Return the verdict on the pool a row would use."""
    return next((p.verdict.band for p in view.standing.pools if p.name == pool), Band.UNKNOWN)


@dataclass(frozen=True, slots=True)
class MatrixLine:
    """One line of the matrix: a row that is armed, or the reason why it is not."""

    level: str
    standing: RowStanding | None
    reason: str = ""


def matrix_lines(view: Overview) -> list[MatrixLine]:
    """Put armed and unarmed rows together, the worst first."""
    armed = [MatrixLine(row.row.level, row) for row in view.standing.rows]
    unarmed = [MatrixLine(level, None, reason) for level, reason in view.standing.not_armed.items()]
    return sorted((*armed, *unarmed), key=lambda line: line.level)


def phases_of(view: Overview) -> dict[str, Phase]:
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


@dataclass(frozen=True, slots=True)
class Endpoints:
    """A pool's endpoints as they are shown."""

    shown: tuple[EndpointStanding, ...]
    folded: tuple[EndpointStanding, ...]
    """Those that are up, when there are too many to look at."""
    count: Mapping[str, int]
    """How many are `up`, `down` and `unknown`."""


def endpoint_state(endpoint: EndpointStanding) -> str:
    """Return `up`, `down` or, until a probe has looked, `unknown`."""
    return "unknown" if endpoint.up is None else "up" if endpoint.up else "down"


def endpoints_of(pool: PoolStanding) -> Endpoints:
    """Choose which endpoints of a pool to show and which to fold away."""
    states = [endpoint_state(e) for e in pool.endpoints]
    count = {state: states.count(state) for state in ("up", "down", "unknown")}
    if len(pool.endpoints) <= ENDPOINTS_UNFOLDED:
        return Endpoints(pool.endpoints, (), count)
    down_first = sorted((e for e in pool.endpoints if not e.up), key=lambda e: e.up is None)
    return Endpoints(tuple(down_first), tuple(e for e in pool.endpoints if e.up), count)


def beside_usual(evidence: Evidence) -> str:
    """Say what a signal usually is at this hour of the week, and how far from it it is now."""
    if evidence.usual is None or evidence.deviation is None:
        return ""
    side = "above" if evidence.deviation >= 0 else "below"
    usual = reading(evidence.usual, evidence.signal)
    return f"usually {usual} at this hour: {abs(evidence.deviation):.1f} spreads {side}"


def budget_words(held: BudgetStanding) -> str:
    """Say how an objective's error budget stands, and which burn rate pages whom."""
    budget = held.budget
    promise = f"{held.objective} {ratio(budget.target)}"
    if budget.left is None:
        return f"{promise}: nothing has been counted yet"
    words = [
        f"{promise}: {ratio(budget.left)} of the error budget left",
        f"{budget.events:,.0f} events in {duration(budget.watched_s)}",
    ]
    words += [
        f"burns at {burn.short:.1f} times what is allowed ({burn.rule.urgency} from {burn.factor:.3g})"
        for burn in budget.burns
        if burn.trips and burn.short is not None
    ]
    return "; ".join(words)


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
        endpoint_state, endpoints_of, figures_from, known, machine_svg, matrix_lines, open_first, phases_of, unknowns,
        user_figures,
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


class Stands(Protocol):
    """What a page about the service is made of: values of one moment, with how the service stands."""

    @property
    def standing(self) -> Standing:
        """How the service stands."""

    @property
    def now(self) -> datetime:
        """The page's clock."""

    @property
    def version(self) -> str:
        """Ours; it makes browsers ask anew for style and script."""


def draw_standing(template: str, view: Stands) -> str:
    """Draw a page of a view; ages are counted from its `now`."""
    return draw(template, view=view, standing=view.standing)
