"""A page for each alert, and the index of them: from the rules themselves and from what is known of each; pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.degradation.matrix import LEVELS, Level, Row, signals_of
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render import markdown, promql
from controlplane.render.alerting.rules import Alert, Group, Severity
from controlplane.render.markdown import Table
from controlplane.render.runbooks import causes, measures, proof, shelf
from controlplane.render.runbooks.guides import Guide, of_signal
from controlplane.render.runbooks.named import BY_NAME
from controlplane.render.runbooks.place import Place
from controlplane.render.runbooks.rows import Evidence
from controlplane.render.wording import page_name, slug, spell_doing, spell_trigger
from controlplane.signals.sample import CATALOGUE

INDEX = "runbooks/alerts.md"

_WAKES = {
    Severity.CRITICAL: "wakes a person now",
    Severity.WARNING: "for a person, within the working day",
    Severity.INFO: "wakes nobody; it explains others",
    Severity.NONE: "wakes nobody; its absence is the alarm",
}
_FALLBACK = Guide(
    "See what the rule says; nothing more is known here of what users notice.",
    (measures.Measure.HEAL, measures.Measure.KEEP),
    "Find the cause, and write on this page (Notes) how you told it from others.",
    "Decide whether the alert was worth waking somebody.",
    "A rule that names one cause, and a row or a drill for it.",
)


@dataclass(frozen=True, slots=True)
class Ringing:
    """Every rule of one name: they share a page."""

    name: str
    alerts: tuple[Alert, ...]

    @property
    def first(self) -> Alert:
        """The first of them, which stands for all."""
        return self.alerts[0]

    @property
    def signal(self) -> str:
        """The signal that it is about; empty for one about none."""
        name = self.first.labels.get("signal", "")
        return name if name in CATALOGUE else ""


def page_of(name: str) -> str:
    """Return the path of an alert's page."""
    return f"runbooks/alerts/{slug(name)}.md"


def ringing(groups: Sequence[Group]) -> tuple[Ringing, ...]:
    """Return the alerts by name, in the order of their rules."""
    found: dict[str, list[Alert]] = {}
    for group in groups:
        for alert in group.alerts:
            found.setdefault(alert.name, []).append(alert)
    return tuple(Ringing(name, tuple(alerts)) for name, alerts in found.items())


def guide_of(alert: Ringing) -> Guide:
    """Return what is known of an alert: of its name, or else of its signal."""
    return BY_NAME.get(alert.name) or of_signal(alert.signal) or _FALLBACK


def is_known(alert: Ringing) -> bool:
    """Tell whether more is known of an alert than its rule says."""
    return guide_of(alert) is not _FALLBACK


def alert_page(policy: Policy, alert: Ringing, evidence: Evidence, place: Place) -> str:
    """Return the page of one alert."""
    guide, row = guide_of(alert), _row(policy, alert)
    suspects = (*guide.causes, *causes.of_signals((alert.signal,) if alert.signal else ()))
    proofs = proof.evidence(row, evidence.drills) if row else ()
    incidents = proof.incidents_of(row, evidence.incidents) if row else ()
    body = shelf.environment().get_template("alert.md.j2").render(
        name=alert.name,
        service=policy.service,
        severity=alert.first.severity.value,
        wakes=_WAKES[alert.first.severity],
        leads=[_link(policy, level, "../") for level in _levels(alert)],
        dwell=_dwell(alert.first),
        meaning=list(dict.fromkeys(a.meaning for a in alert.alerts)),
        users=guide.users,
        rules=[a.expr for a in alert.alerts],
        witness=_witness(alert),
        setup=place.setup(),
        dashboard=place.dashboard,
        page=f"alerts/{slug(alert.name)}",
        commands=_commands(alert),
        look=_look(alert, place),
        causes=causes.told(dict.fromkeys(suspects), place),
        itself=list(_itself(policy, alert, guide)),
        steps=measures.steps(guide.measures, policy, row, place),
        escalation=_escalation(alert, row),
        phases=_phases(alert, guide),
        proved=_proved(row, evidence) if row else "",
        evidence=proof.evidence_table(proofs[:3]) if proofs else None,
        trend=proof.trend(proofs),
        incidents=proof.incident_table(row, incidents[:3]) if row and incidents else None,
    )  # fmt: skip
    facts = {
        "rule": "; ".join(a.expr for a in alert.alerts),
        "fires": _dwell(alert.first),
        "severity": alert.first.severity.value,
        "leads to": tuple(_levels(alert)),
        "rows that look at it": tuple(row.level for row in _looking(policy, alert)),
        "evidence": proof.spell_proof(proofs[0]) if proofs else "no drill",
    }
    return shelf.finish(body, place.source, facts, proofs[0].id if proofs else "")


def index_page(policy: Policy, groups: Sequence[Group], rules: str, evidence: Evidence, place: Place) -> str:
    """Return the page that lists every row and every alert."""
    rows = Table(
        ("Row", "What it does", "Promise", "Proof", "Page"),
        tuple(
            (
                row.level.value, markdown.text(spell_doing(row)), spell_duration(row.within),
                proof.headline(row, evidence.drills), f"[{page_name(row)}]({page_name(row)}.md)",
            )
            for row in rows_of(policy)
        ) or (("-", "no row is armed", "-", "-", "-"),),
    )  # fmt: skip
    drawn = [
        {
            "title": group.name.removeprefix("controlplane-").capitalize(),
            "about": group.about,
            "alerts": Table(("Alert", "Severity", "Leads to", "Fires", "First"), _lines(policy, group)),
        }
        for group in groups
        if group.alerts
    ]
    body = shelf.environment().get_template("alerts.md.j2").render(
        service=policy.service, rules=rules, rows=rows, groups=drawn, setup=place.setup(), dashboard=place.dashboard,
        source=place.source,
    )  # fmt: skip
    facts = {
        "rows": tuple(f"{row.level} {spell_doing(row)}" for row in rows_of(policy)),
        "alerts": tuple(alert.name for alert in ringing(groups)),
        "evidence": tuple(f"{row.level} {_proved(row, evidence)}" for row in rows_of(policy)),
    }
    return shelf.finish(body, place.source, facts)


def rows_of(policy: Policy) -> tuple[Row, ...]:
    """Return the armed rows, P0 first."""
    return tuple(policy.degradation.rows[level] for level in reversed(LEVELS) if level in policy.degradation.rows)


def _lines(policy: Policy, group: Group) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for alert in ringing((group,)):
        leads = ", ".join(_link(policy, level, "") for level in _levels(alert)) or "no row"
        page = f"[{alert.name}]({page_of(alert.name).removeprefix('runbooks/')})"
        act = markdown.prose(alert.first.act)
        lines.append((page, alert.first.severity.value, leads, _dwell(alert.first), act))
    return lines


def _dwell(alert: Alert) -> str:
    return f"after {spell_duration(alert.dwell)}" if alert.dwell else "at once"


def _levels(alert: Ringing) -> list[str]:
    return [level for level in dict.fromkeys(str(a.level) for a in alert.alerts) if level in set(LEVELS) - {Level.NONE}]


def _row(policy: Policy, alert: Ringing) -> Row | None:
    levels = [Level(level) for level in _levels(alert)]
    return policy.degradation.rows.get(max(levels, key=LEVELS.index)) if levels else None


def _link(policy: Policy, level: str, up: str) -> str:
    row = policy.degradation.rows.get(Level(level))
    return f"[{level}]({up}{page_name(row)}.md)" if row else level


def _witness(alert: Ringing) -> str:
    """Say how an alert stands to the one that the control plane's own series make."""
    if not alert.signal:
        return ""
    own = f"{''.join(part.capitalize() for part in alert.signal.split('_'))}Breach"
    if alert.name.startswith("Engine"):
        return (
            f"The second witness: the engine's own count, read by Prometheus alone. Hold it against [{own}]({own}.md): "
            "when only this one fires, the control plane is blind or late; when only the other does, what is wrong "
            "never reaches the engine."
        )
    if alert.name.endswith("Warn"):
        return f"An early sign: nobody has to act yet. [{own}]({own}.md) is the alert that calls for it."
    return ""


def _commands(alert: Ringing) -> str:
    """Return what to ask the control plane first."""
    if not alert.signal:
        return "controlplane status\ncontrolplane level"
    return (
        "controlplane status\n"
        "ask /api/v1/standing | jq -c '.pools[] | .name as $pool | .verdict.evidence[] "
        f'| select(.signal == "{alert.signal}") | {{pool: $pool, value, band, samples, source, reason}}\''
    )


def _look(alert: Ringing, place: Place) -> tuple[str, ...]:
    ours = place.matcher
    if not alert.signal:
        return (f"controlplane_level{{{ours}}} == 1", f"controlplane_endpoint_up{{{ours}}} == 0")
    near = promql.one_of(tuple(dict.fromkeys((alert.signal, *_NEAR.get(alert.signal, ("request_rate",))))))
    return (
        f"controlplane_signal_value{{{ours}, signal=~{near}}}",
        f"controlplane_signal_value{{{ours}, signal={promql.quoted(alert.signal)}}} offset 1h",
    )


_NEAR: Mapping[str, tuple[str, ...]] = {
    "availability": ("endpoints_down", "token_progress", "log_fatals"),
    "endpoints_down": ("availability", "nodes_not_ready", "pod_restarts"),
    "latency_p99": ("queue_depth", "request_rate", "inter_token_latency_p99", "ttft_p99"),
    "ttft_p99": ("queue_depth", "request_rate", "kv_cache_utilization"),
    "inter_token_latency_p99": ("requests_running", "preemptions_rate", "gpu_utilization"),
    "error_rate": ("availability", "request_rate", "log_errors_rate"),
    "queue_depth": ("requests_running", "request_rate", "tokens_rate"),
    "kv_cache_utilization": ("preemptions_rate", "requests_running", "queue_depth"),
    "gpu_utilization": ("tokens_rate", "requests_running", "gpu_temperature"),
    "memory_utilization": ("pods_oom_killed", "log_fatals"),
    "cpu_utilization": ("inter_token_latency_p99", "request_rate"),
}
"""What to look at beside a signal: what would explain it, or follow from it."""


def _itself(policy: Policy, alert: Ringing, guide: Guide) -> Iterator[str]:
    if guide.itself:
        yield guide.itself
    looking = _looking(policy, alert)
    for row in looking:
        ways = [way for way in spell_trigger(policy, row.when) if f"`{alert.signal}`" in way]
        yield (
            f"Row {_link(policy, row.level, '../')} trips by {' or '.join(ways)}, and then does this: "
            f"{markdown.text(spell_doing(row))}."
        )
    if not looking and not guide.itself:
        yield "No row looks at this: nothing moves by itself."


def _looking(policy: Policy, alert: Ringing) -> tuple[Row, ...]:
    """Return the rows that trip by the alert's signal."""
    return tuple(row for row in rows_of(policy) if alert.signal and alert.signal in signals_of(row.when))


def _escalation(alert: Ringing, row: Row | None) -> Table:
    urgent = alert.first.severity is Severity.CRITICAL
    if not urgent:
        return Table(
            ("When", "Who", "With what"),
            (
                ("Within the working day", "on call for this service", "this page"),
                ("When it turns critical, or comes back within a week", "the owner of the pools", "the evidence below"),
            ),
        )
    within = spell_duration(row.within) if row else "15m"
    half = spell_duration(row.within / 2) if row else "5m"
    return Table(
        ("When", "Who", "With what"),
        (
            ("At once", "on call for this service", "this page, *By hand*"),
            (f"After {half} without a change for users", "second on call, and the owner of the pools", "the standing"),
            (f"After {within}", "incident commander; users are told", "the incident's page on the console"),
        ),
    )  # fmt: skip


def _phases(alert: Ringing, guide: Guide) -> Table:
    return Table(
        ("When", "What"),
        (
            ("0-2 h", markdown.prose(alert.first.act)),
            ("2-24 h", markdown.prose(guide.day)),
            ("24-72 h", markdown.prose(guide.later)),
            ("Prevention", markdown.prose(guide.prevent)),
        ),
    )


def _proved(row: Row, evidence: Evidence) -> str:
    return proof.headline(row, evidence.drills)
