"""What the console says in words: times, triggers, actions, splits, budgets, and how the service stands; pure.

Every text that people or servers wrote is escaped, here by markupsafe, in templates by Jinja2.
"""

from datetime import UTC, datetime

from markupsafe import Markup

from controlplane.degradation.action import Action, ServeFromCache, SwitchPool, UsePool, pool_of, spell_actions
from controlplane.degradation.actuator import RoutePlan
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import AlertFires, AllOf, AnyOf, Condition, Level, Trigger
from controlplane.fleet.model import PRIMARY
from controlplane.flows.standing import BudgetStanding, Standing
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence
from controlplane.web.numbers import duration, ratio, reading

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


def headline(standing: Standing) -> str:
    """Say in one sentence how the service stands."""
    if standing.level is not Level.NONE:
        return f"{standing.level} in force{_in_force_words(standing)}"
    band = primary_band(standing)
    if band is Band.OK:
        return "Normal: the primary pool serves"
    if band is Band.UNKNOWN:
        return "No level in force, but the primary pool is unknown"
    return f"No level in force, but the primary pool is in {band}"


def _in_force_words(standing: Standing) -> str:
    """Say what the level in force does, or how far it has been given back."""
    row = next((r for r in standing.rows if r.row.level is standing.level), None)
    if row is None:
        return ""
    if row.phase is Phase.RELEASING:
        return f", being released: {ratio(row.given_back)} of its traffic is given back"
    move = row.row.move
    if move is None:
        return f": {spell_actions(row.row.do)}"
    if isinstance(move, UsePool):
        return f": {ratio(move.share)} of primary traffic goes to {move.pool}"
    return f": all primary traffic goes to {pool_of(move)}"


def primary_band(standing: Standing) -> Band:
    """Return the verdict on the primary pool; unknown when there is none."""
    return next((p.verdict.band for p in standing.pools if p.name == PRIMARY), Band.UNKNOWN)


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
