"""Runbooks: a page for every armed row and one for all alerts, made from the policy and the drills; pure.

The only importer of Jinja2. Called by `artefacts`. Templates get finished Markdown and inert values; they hold prose
and order, no decisions.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from jinja2 import FunctionLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from controlplane.chaos.drill import Drill
from controlplane.degradation.action import ServeFromCache, SwitchPool, share_of, spell_actions
from controlplane.degradation.machine import TRANSITIONS
from controlplane.degradation.matrix import LEVELS, Level, Mode, Row, signals_of
from controlplane.fleet.model import EnvoySpec
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render import markdown, promql
from controlplane.render.markdown import Table
from controlplane.render.rules import Alert, Group
from controlplane.render.runbooks import by_hand, causes
from controlplane.render.runbooks.proof import evidence, evidence_table, headline, reasons_of
from controlplane.render.wording import page_name, spell_doing, spell_ratio, spell_trigger


def pages(
    policy: Policy, drills: Sequence[Drill], groups: Sequence[Group], source: str, rules: str
) -> Mapping[str, str]:
    """Return every runbook of one policy by path.

    Args:
        policy: what the pages are made from.
        drills: newest first; what has been measured.
        groups: the alerts that lead to the pages.
        source: the policy page's name, as it is written at the top of each page.
        rules: path of the rule file the alerts stand in.
    """
    made = {f"runbooks/{page_name(row)}.md": _row_page(policy, row, drills, source) for row in _rows(policy)}
    made["runbooks/alerts.md"] = _finish(_alerts_page(policy, groups, rules, drills), source)
    return made


def _rows(policy: Policy) -> tuple[Row, ...]:
    return tuple(policy.degradation.rows[level] for level in reversed(LEVELS) if level in policy.degradation.rows)


@cache
def _environment() -> SandboxedEnvironment:
    folder = resources.files("controlplane.render").joinpath("templates")
    environment = SandboxedEnvironment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: the filters below escape for it
    )
    environment.filters |= {"text": markdown.text, "code": markdown.code, "table": markdown.table}
    return environment


def _row_page(policy: Policy, row: Row, drills: Sequence[Drill], source: str) -> str:
    matcher = f"service={promql.quoted(policy.service)}"
    proofs = evidence(row, drills)
    gateway = policy.fleet.gateway.envoy if policy.fleet.gateway else None
    body = _environment().get_template("row.md.j2").render(
        level=row.level.value,
        does=spell_doing(row),
        lever=spell_actions(row.do),
        service=policy.service,
        within=spell_duration(row.within),
        headline=headline(row, drills),
        meaning=_meaning(row),
        trips=spell_trigger(policy, row.when),
        observe=policy.degradation.mode is Mode.OBSERVE,
        automatic=_automatic(row, matcher),
        hold=spell_duration(row.release.hold),
        steps=", ".join(spell_ratio(step) for step in row.release.steps),
        edges=_edges(),
        evidence=evidence_table(proofs) if proofs else None,
        reasons=reasons_of(proofs),
        no_proof=_no_proof(policy, row),
        source=source,
        gateway=_addresses(gateway) if gateway else None,
        look=_look(row, matcher),
        causes=causes.likely(signals_of(row.when), matcher, promql.engine_matcher(policy.service)),
        by_hand=by_hand.steps(policy, row, source),
        escalation=_escalation(row),
    )  # fmt: skip
    return _finish(body, source, proofs)


def _alerts_page(policy: Policy, groups: Sequence[Group], rules: str, drills: Sequence[Drill]) -> str:
    names = {row.level.value: f"{page_name(row)}.md" for row in _rows(policy)}
    drawn = []
    for group in groups:
        mine = {a.name: a for a in group.alerts if a.runbook.startswith("runbooks/alerts.md")}
        if mine:
            drawn.append(
                {
                    "title": group.name.removeprefix("controlplane-").capitalize(),
                    "about": group.about,
                    "alerts": [_alert(alert, names) for alert in mine.values()],
                }
            )
    rows = Table(
        ("Row", "What it does", "Promise", "Proof", "Page"),
        tuple(
            (
                row.level.value, markdown.text(spell_doing(row)), spell_duration(row.within),
                headline(row, drills), f"[{page_name(row)}]({page_name(row)}.md)",
            )
            for row in _rows(policy)
        ) or (("-", "no row is armed", "-", "-", "-"),),
    )  # fmt: skip
    return _environment().get_template("alerts.md.j2").render(
        service=policy.service, rules=rules, rows=rows, groups=drawn
    )  # fmt: skip


def _alert(alert: Alert, names: Mapping[str, str]) -> dict[str, str]:
    return {
        "name": alert.name,
        "severity": alert.severity.value,
        "level": str(alert.level),
        "page": names.get(alert.level, ""),
        "dwell": f"fires after {spell_duration(alert.dwell)}" if alert.dwell else "fires at once",
        "meaning": alert.meaning,
        "act": alert.act,
        "expr": alert.expr,
    }


def _finish(body: str, source: str, proofs: Sequence[Drill] = ()) -> str:
    """Head a page, drop what whitespace templates leave, and end it with its revision."""
    lines = "\n".join(line.rstrip() for line in body.splitlines())
    while "\n\n\n" in lines:
        lines = lines.replace("\n\n\n", "\n\n")
    revision = hashlib.sha256(lines.encode()).hexdigest()[:12]
    newest = f"; newest evidence: drill {markdown.code(proofs[0].id)}" if proofs else ""
    said = markdown.code(source)
    return (
        f"{markdown.comment(f'rendered from {source} by `controlplane render`; edit {source}')}\n\n"
        f"{lines.strip()}\n\n---\n\nRevision `{revision}`, made from {said}{newest}.\n"
    )


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
    return Table(
        ("Step", "What happens", "See it in"),
        (
            ("Detect", "Probes look at every endpoint; refused connections count at once, soft signs after their time",
             markdown.code(f'controlplane_signal_value{{{matcher}, pool="primary"}}')),
            ("Decide", f"{level} trips when its condition holds; unknown trips nothing and releases nothing",
             markdown.code(f'controlplane_row_phase{{{matcher}, row="{level}"}}')),
            ("Gate", f"Pool {markdown.code(row.target)} must answer a real completion, else the switch is refused",
             markdown.code(f'controlplane_switches_total{{{matcher}, outcome="refused"}}')),
            ("Act", "The intent is stored, then the gateway's route weights are written",
             "`/api/v1/receipts`, state `applied`"),
            ("Verify", "It counts when the gateway's live configuration and real answers show it",
             "`/api/v1/receipts`, state `verified`"),
            ("Record", "An incident with its timeline is opened", "`/api/v1/incidents`"),
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


def _addresses(envoy: EnvoySpec) -> dict[str, str]:
    """Return shell words that give the gateway's addresses, read from files where the page says so."""
    return {
        "admin": _address(envoy.admin),
        "listener": _address(envoy.listener),
        "rds": markdown.shell(f"{envoy.xds_dir.rstrip('/')}/rds.json"),
    }


def _address(address: str) -> str:
    if address.startswith("file:"):
        return f'"http://$(cat {markdown.shell(address.removeprefix("file:"))})"'
    return markdown.shell(address.rstrip("/"))


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
