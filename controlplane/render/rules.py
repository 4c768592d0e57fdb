"""Alerting rules as values, and as the YAML page Prometheus loads; pure.

`alerts` makes the values from the policy; the runbooks are made from the same values, so no alert lacks its page.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

import yaml

from controlplane.policy.quantity import spell_duration


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
    dwell: timedelta = timedelta(0)
    labels: Mapping[str, str] = field(default_factory=dict)
    """What else to route and inhibit by, such as the signal it is about."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together."""

    name: str
    about: str
    every: timedelta
    alerts: tuple[Alert, ...]


def anchored(name: str) -> str:
    """Return the runbook of an alert."""
    return f"runbooks/alerts/{name}.md"


class _Dumper(yaml.SafeDumper):
    """Writes lists indented and texts of several lines as blocks, as people write rule files."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def literal(text: str) -> str:
    """Make a text stand for itself inside Prometheus's template language."""
    return text.replace("{{", '{{ "{{" }}')


def page(header: str, groups: tuple[Group, ...], service: str, dashboard: str) -> str:
    """Write groups as a Prometheus rule file; `header` is its comment, one line each."""
    parts = ["".join(f"# {line}".rstrip() + "\n" for line in header.splitlines()), "groups:\n"]
    for group in groups:
        body = {
            "name": group.name,
            "interval": spell_duration(group.every),
            "rules": [_rule(alert, service, dashboard) for alert in group.alerts],
        }
        written = yaml.dump([body], Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
        comment = "".join(f"  # {line}\n" for line in textwrap.wrap(group.about, 112))
        parts.append(f"{comment}{textwrap.indent(written, '  ', lambda line: bool(line.strip()))}\n")
    return "".join(parts).rstrip("\n") + "\n"


def _rule(alert: Alert, service: str, dashboard: str) -> dict[str, Any]:
    labels = {"severity": alert.severity.value, "level": str(alert.level), "service": literal(service), **alert.labels}
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    if alert.dwell:
        rule["for"] = spell_duration(alert.dwell)
    return rule | {
        "labels": labels,
        "annotations": {
            "summary": alert.summary,
            "description": alert.meaning,
            "runbook_url": alert.runbook,
            "dashboard_url": dashboard,
        },
    }
