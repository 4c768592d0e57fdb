"""Alerting and recording rules as values, and as the YAML page Prometheus loads; pure.

`groups` makes the values from the policy; runbooks, unit tests, routes and detection budgets are made from the same
values, so no alert lacks its page, its test or its arithmetic.
"""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.proof import Proof
from controlplane.render.alerting.yaml_text import Value, dump


class Severity(StrEnum):
    """Who is to be woken."""

    CRITICAL = "critical"
    """A person, now."""
    WARNING = "warning"
    """A person, within the working day."""
    INFO = "info"
    """Nobody; it explains the others."""
    NONE = "none"
    """Nobody; its absence is the alarm."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule and what its runbook says."""

    name: str
    expr: str
    severity: Severity
    level: str
    """The row of the matrix it leads to, or `none`."""
    summary: str
    """One line with the value in it, in Prometheus's template language."""
    runbook: str
    """Path of its page, with the anchor."""
    meaning: str
    """What it says about users and the fleet."""
    act: str
    """What to do first."""
    proof: Proof
    """Series under which it fires, keeps silent and resolves; the unit tests are made of them."""
    dwell: timedelta = timedelta(0)
    needs: timedelta = timedelta(0)
    """How much of the harm its expression must see before it can be true: of a window, what may still be well."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What else to route and inhibit by, such as the signal it is about."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What else it says, in Prometheus's template language."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule: a value that several alerts read, computed once."""

    name: str
    """As `level:metric:operations`."""
    expr: str


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together, records first."""

    name: str
    about: str
    every: timedelta
    alerts: tuple[Alert, ...]
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class Links:
    """Where the pages that an alert leads to are served."""

    dashboard: str
    """The dashboard of this service: absolute where the page says where Grafana is."""
    runbooks: str = ""
    """What stands before a runbook's path; empty leaves it relative to the rendered files."""


OUTRANKS = "outranks"
"""The label of alerts that make those of lower levels superfluous: users are hurt now, and the level says how badly."""
OUTRANKING: Mapping[str, str] = {OUTRANKS: "lower"}


def anchored(name: str) -> str:
    """Return the runbook of an alert."""
    return f"runbooks/alerts/{name}.md"


def literal(text: str) -> str:
    """Make a text stand for itself inside Prometheus's template language."""
    return text.replace("{{", '{{ "{{" }}')


def page(header: str, groups: tuple[Group, ...], service: str, links: Links) -> str:
    """Write groups as a Prometheus rule file; `header` is its comment, one line each."""
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in header.splitlines()), "groups:\n"]
    for group, body in zip(groups, bodies(groups, service, links), strict=True):
        comment = "".join(f"  # {line}\n" for line in textwrap.wrap(group.about, 112))
        parts.append(f"{comment}{dump([body], 2)}\n")
    return "".join(parts).rstrip("\n") + "\n"


def bodies(groups: tuple[Group, ...], service: str, links: Links) -> Iterator[dict[str, Value]]:
    """Give every group as Prometheus and its operator read it."""
    for group in groups:
        yield {
            "name": group.name,
            "interval": spell_duration(group.every),
            "rules": [
                *({"record": record.name, "expr": record.expr} for record in group.records),
                *(_rule(alert, service, links) for alert in group.alerts),
            ],
        }


def labels_of(alert: Alert, service: str) -> dict[str, str]:
    """Return the labels that a rule puts on its alert, in Prometheus's template language."""
    return {"severity": alert.severity.value, "level": str(alert.level), "service": literal(service), **alert.labels}


def annotations_of(alert: Alert, links: Links) -> dict[str, str]:
    """Return what a rule says to people, in Prometheus's template language."""
    return {
        "summary": alert.summary,
        "description": alert.meaning,
        "runbook_url": f"{links.runbooks}{alert.runbook}",
        "dashboard_url": links.dashboard,
        **alert.annotations,
    }


def _rule(alert: Alert, service: str, links: Links) -> dict[str, Value]:
    rule: dict[str, Value] = {"alert": alert.name, "expr": alert.expr}
    if alert.dwell:
        rule["for"] = spell_duration(alert.dwell)
    return rule | {"labels": labels_of(alert, service), "annotations": annotations_of(alert, links)}
