"""The page of one row of the matrix: what it means, what happens by itself, what people do, what proves it; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.chaos.drill import Drill
from controlplane.degradation.action import ServeFromCache, SwitchPool, share_of, spell_actions
from controlplane.degradation.machine import TRANSITIONS
from controlplane.degradation.matrix import Level, Mode, Row, signals_of
from controlplane.incidents.incident import Incident
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render import markdown, promql
from controlplane.render.markdown import Table
from controlplane.render.runbooks import by_hand, causes, proof, routes, shelf
from controlplane.render.runbooks.history import Facts
from controlplane.render.runbooks.place import Place
from controlplane.render.wording import page_name, spell_doing, spell_ratio, spell_trigger

_REVIEW = (
    "Read the incident's report (`controlplane incident report ID`) together: was it seen early enough, was it the "
    "right row, what cost the time?"
)
_PREVENT = (
    "Change the page where the report says so, replay the recording with it (`controlplane simulate`), rehearse the row"
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is on record of how well the plan works, newest first."""

    drills: tuple[Drill, ...] = ()
    incidents: tuple[Incident, ...] = ()


def row_page(policy: Policy, row: Row, evidence: Evidence, place: Place, alerts: Sequence[str]) -> str:
    """Return the page of one row.

    Args:
        policy: what it is made from.
        row: the row.
        evidence: what drills and incidents have shown.
        place: where its commands work.
        alerts: names of the alerts that lead to it.
    """
    proofs = proof.evidence(row, evidence.drills)
    incidents = proof.incidents_of(row, evidence.incidents)
    body = shelf.environment().get_template("row.md.j2").render(
        level=row.level.value,
        does=spell_doing(row),
        lever=spell_actions(row.do),
        service=policy.service,
        within=spell_duration(row.within),
        headline=proof.headline(row, evidence.drills),
        meaning=_meaning(row),
        trips=spell_trigger(policy, row.when),
        observe=policy.degradation.mode is Mode.OBSERVE,
        automatic=_automatic(row, place.matcher),
        hold=spell_duration(row.release.hold),
        steps=", ".join(spell_ratio(step) for step in row.release.steps),
        edges=_edges(),
        evidence=proof.evidence_table(proofs) if proofs else None,
        trend=proof.trend(proofs),
        incidents=proof.incident_table(row, incidents) if incidents else None,
        reasons=proof.reasons_of(proofs),
        no_proof=_no_proof(policy, row),
        source=place.source,
        page=page_name(row),
        alerts=alerts,
        setup=place.setup(),
        dashboard=place.dashboard,
        gateway_look=_gateway_look(place),
        look=_look(row, place.matcher),
        causes=causes.told(causes.of_signals(signals_of(row.when)), place),
        by_hand=by_hand.steps(policy, row, place),
        no_lever=_no_lever(policy, place),
        escalation=_escalation(row),
        phases=_phases(row),
    )  # fmt: skip
    return shelf.finish(
        body, place.source, _facts(policy, row, proofs, incidents, alerts), proofs[0].id if proofs else ""
    )


def _facts(
    policy: Policy, row: Row, proofs: Sequence[Drill], incidents: Sequence[Incident], alerts: Sequence[str]
) -> Facts:
    newest, steps = incidents[0] if incidents else None, ", ".join(spell_ratio(step) for step in row.release.steps)
    return {
        "does": spell_doing(row),
        "promise": spell_duration(row.within),
        "trips by": spell_trigger(policy, row.when),
        "way back": f"{steps}, each {spell_duration(row.release.hold)}",
        "mode": policy.degradation.mode.value,
        "alerts": tuple(alerts),
        "evidence": proof.spell_proof(proofs[0]) if proofs else "no drill",
        "incident": f"{newest.detected_at:%Y-%m-%d %H:%M} {newest.state}" if newest else "",
    }


def _meaning(row: Row) -> str:
    pool = markdown.code(row.target)
    if row.move is None:
        return (
            f"The primary pool is in trouble, and this row eases it where it is: {spell_doing(row)}. "
            f"Every answer carries `x-degradation-level: {row.level}`."
        )
    if isinstance(row.move, ServeFromCache):
        return (
            f"The primary pool has more to do than it can. Once this row is in force, pool {pool} answers every "
            f"question it has answered before, at once, and asks the fleet for the others at the pace the fleet bears; "
            f"what is over that is refused and may be tried again. Every answer carries "
            f"`x-degradation-level: {row.level}`."
        )
    if isinstance(row.move, SwitchPool):
        return (
            f"The primary pool does not serve its users, or soon will not. Until this row is in force they get errors, "
            f"time-outs or nothing. Once it is, pool {pool} answers everything with the same model: users notice no "
            f"difference in the answers, and there is **no second reserve**. Every answer carries "
            f"`x-degradation-level: {row.level}`."
        )
    return (
        f"The primary pool is saturated: answers come, and slower than promised. Once this row is in force, "
        f"{spell_ratio(share_of(row.move))} of the primary's traffic goes to pool {pool}. Those users get answers "
        f"in time from a model that may know less; all others get theirs faster. Every answer carries "
        f"`x-degradation-level: {row.level}`."
    )


def _automatic(row: Row, matcher: str) -> Table:
    level = row.level.value
    gate = (
        f"Pool {markdown.code(row.target)} must answer a real completion, else the switch is refused"
        if row.move is not None
        else "The row's actions are tried without being done, else they are refused"
    )
    return Table(
        ("Step", "What happens", "See it in"),
        (
            ("Detect", "Probes look at every endpoint; refused connections count at once, soft signs after their time",
             markdown.code(f'controlplane_signal_value{{{matcher}, pool="primary"}}')),
            ("Decide", f"{level} trips when its condition holds; unknown trips nothing and releases nothing",
             markdown.code(f'controlplane_row_phase{{{matcher}, row="{level}"}}')),
            ("Gate", gate, markdown.code(f'controlplane_switches_total{{{matcher}, outcome="refused"}}')),
            ("Act", "The intent is stored, then the lever is moved", "`/api/v1/receipts`, state `applied`"),
            ("Verify", "It counts when the gateway's live configuration and real answers show it",
             "`/api/v1/receipts`, state `verified`"),
            ("Record", "An incident with its timeline is opened, and has a page of its own",
             "`controlplane incident list`"),
        ),
    )  # fmt: skip


def _edges() -> tuple[str, ...]:
    """Draw the machine from its own table."""
    first = next(iter(TRANSITIONS))[0]
    return (
        f"[*] --> {first}",
        *(f"{phase} --> {to.to}: {cue}" for (phase, cue), to in TRANSITIONS.items()),
    )


def _no_proof(policy: Policy, row: Row) -> str:
    """Say how to get the proof that is missing."""
    if policy.fleet.substrate is None:
        return ", and none can: the page names no `fleet.substrate`, so nothing can be broken on purpose."
    if row.level is Level.P0:
        return ": run `controlplane drill run node-kill`."
    return ": its times are a promise, not a measurement. `controlplane drill list` shows what has been rehearsed."


def _no_lever(policy: Policy, place: Place) -> str:
    """Say why the page has no commands that move the gateway itself."""
    if policy.fleet.gateway is None:
        return "The policy page names no gateway: nothing can be moved from here. Whoever routes the traffic moves it."
    if place.envoy or place.kubernetes:
        return ""
    return (
        "What splits the traffic here is driven through its own interface: where the control plane cannot move it, "
        "whoever owns it does. Tell them the split above."
    )


def _gateway_look(place: Place) -> str:
    """Return the commands that show what the gateway really does."""
    lines = []
    if place.envoy:
        lines.append(by_hand.WEIGHTS)
    elif place.kubernetes:
        lines.append(routes.shown(place, place.kubernetes))
    if place.listener:
        lines.append(
            'curl -sS -o /dev/null -D - "$LISTENER/v1/models" '
            "| grep -i -e '^HTTP/' -e '^x-degradation-level' -e '^x-served-by'"
        )
    return "\n".join(lines)


def _look(row: Row, matcher: str) -> tuple[str, ...]:
    signals = promql.one_of(signals_of(row.when))
    return (
        f"controlplane_level{{{matcher}}} == 1",
        f'controlplane_row_phase{{{matcher}, row="{row.level}"}} == 1',
        f"controlplane_signal_value{{{matcher}, signal=~{signals}}}",
        f"controlplane_endpoint_up{{{matcher}}}",
        "sum by (probe, result) (rate(controlplane_probes_total[1m]))",
    )


def _escalation(row: Row) -> Table:
    within = spell_duration(row.within)
    half = spell_duration(row.within / 2)
    return Table(
        ("When", "Who", "With what"),
        (
            ("At once, when the row is not in force by itself", "on call for this service", "this page, *By hand*"),
            (f"After {half} without a verified receipt", "second on call, and the owner of the pools",
             "the standing, the newest receipt"),
            (f"After {within}, the promise", "incident commander; users are told", "the incident's timeline"),
            ("When the fallback pool is ill, too", "whoever can add capacity or turn users away",
             "the verdicts of all pools"),
        ),
    )  # fmt: skip


def _phases(row: Row) -> Table:
    """Say what is to be done when, from the first minute to the weeks after."""
    served = {
        SwitchPool: f"See that pool {markdown.code(row.target)} bears all of it: there is no second reserve",
        ServeFromCache: "See the cache's share of hits: what it does not know still goes to the fleet",
    }.get(type(row.move), "See that the primary pool recovers under the smaller load")
    return Table(
        ("When", "What", "Done when"),
        (
            ("0-2 h", f"Users first: the row in force, by itself or by hand. {served}", "The receipt is `verified`"),
            ("2-24 h", "Find and mend the cause; give the traffic back by steps; keep logs and stacks before restarts",
             "The incident is `resolved`, the level is `none`"),
            ("24-72 h", _REVIEW, "Every follow-up has an owner and a date"),
            ("Prevention", _PREVENT, "The newest drill on this page has passed"),
        ),
    )  # fmt: skip
