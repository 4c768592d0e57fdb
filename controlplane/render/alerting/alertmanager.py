"""Alertmanager's configuration for one service: who is told of what, and what is not worth telling; pure.

The control plane hears of everything that leads to a row, at once and with its end; people by severity. Alerts of
lower levels keep silent while a worse one says that users are hurt; a warning while its breach fires.
"""

from collections.abc import Mapping
from datetime import timedelta

from controlplane.degradation.errand import ReceiverSpec
from controlplane.degradation.matrix import LEVELS, Level
from controlplane.incidents.firing import WATCHDOG
from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.rules import OUTRANKS, Severity
from controlplane.render.alerting.yaml_text import Value, dump

HOOK = "/hooks/alertmanager"
"""Where the control plane takes what Alertmanager posts."""
NOBODY = "nobody"
CONTROL = "controlplane"
WATCH = "controlplane-watchdog"

_UNHURRIED = timedelta(seconds=30)
"""How long more of the same is waited for where nobody is woken: Alertmanager's own default."""
_REPEATS = {Severity.CRITICAL: "1h", Severity.WARNING: "12h", Severity.INFO: "24h"}


def wait_of(policy: Policy, severity: Severity, level: str) -> timedelta:
    """Return how long Alertmanager keeps the first alert of a group back before it tells of it."""
    if severity is Severity.NONE:
        return timedelta(0)
    hurried = severity is Severity.CRITICAL or level != Level.NONE
    return policy.publish.group_wait if hurried else max(_UNHURRIED, policy.publish.group_wait)


def page(policy: Policy, header: str) -> str:
    """Write the configuration; `header` is its comment, one line each."""
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    body: dict[str, Value] = {
        "route": {
            "receiver": NOBODY,
            "group_by": ["service", "alertname"],
            "routes": [{"receiver": NOBODY, "matchers": [_is("service", policy.service)], "routes": _routes(policy)}],
        },
        "inhibit_rules": _inhibitions(),
        "receivers": _receivers(policy),
    }
    return comment + dump(body)


def _is(label: str, value: str) -> str:
    """Write a matcher; Alertmanager's own quoting knows three escapes and takes everything else as it stands."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{label}="{escaped}"'


def receiver_of(policy: Policy, severity: Severity) -> str:
    """Return who is told of a severity: a receiver of the page, or nobody."""
    named = policy.publish.notify.get(severity.value, "")
    return f"people-{severity}" if named else NOBODY


def _routes(policy: Policy) -> list[Value]:
    waits = spell_duration(policy.publish.group_wait)
    leads = "|".join(level for level in LEVELS if level is not Level.NONE)
    routes: list[Value] = [
        {
            "receiver": WATCH,
            "matchers": [_is("alertname", WATCHDOG)],
            "group_by": ["alertname"],
            "group_wait": "0s",
            "group_interval": "30s",
            "repeat_interval": "1m",
        },
        {
            "receiver": CONTROL,
            "matchers": ['severity=~"critical|warning|info"'],
            "group_by": ["service", "alertname", "pool"],
            "group_wait": waits,
            "group_interval": "10s",
            "repeat_interval": "1h",
            "continue": True,
        },
        {
            "receiver": receiver_of(policy, Severity.CRITICAL),
            "matchers": [_is("severity", "critical"), f'level=~"{leads}"'],
            "group_by": ["service", "level"],
            "group_wait": waits,
            "group_interval": "1m",
            "repeat_interval": "15m",
        },
    ]
    for severity in (Severity.CRITICAL, Severity.WARNING, Severity.INFO):
        routes.append(
            {
                "receiver": receiver_of(policy, severity),
                "matchers": [_is("severity", severity)],
                "group_by": ["service", "alertname"],
                "group_wait": spell_duration(wait_of(policy, severity, Level.NONE)),
                "group_interval": "1m" if severity is Severity.CRITICAL else "5m",
                "repeat_interval": _REPEATS[severity],
            }
        )
    return routes


def _inhibitions() -> list[Value]:
    """P0 silences P1 and P2, P1 silences P2; a breach silences its warning."""
    armed = [level for level in LEVELS if level is not Level.NONE]
    rules: list[Value] = [
        {
            "source_matchers": [f'{OUTRANKS}="lower"', f'level="{level}"'],
            "target_matchers": [f'level=~"{"|".join(lower)}"'],
            "equal": ["service"],
        }
        for i, level in reversed(list(enumerate(armed)))
        if (lower := armed[:i])
    ]
    rules.append(
        {
            "source_matchers": ['band="breach"'],
            "target_matchers": ['band="warn"'],
            "equal": ["service", "pool", "signal"],
        }
    )
    return rules


def _receivers(policy: Policy) -> list[Value]:
    found: list[Value] = [{"name": NOBODY}]
    for name in (CONTROL, WATCH):
        token = {"type": "Bearer", "credentials_file": policy.publish.token_file}
        found.append({"name": name, "webhook_configs": [_hook(f"{policy.publish.control.rstrip('/')}{HOOK}", token)]})
    for severity, named in policy.publish.notify.items():
        spec = policy.degradation.receivers[named]
        found.append({"name": f"people-{severity}", **_people(spec)})
    return found


def _hook(url: str, authorization: Mapping[str, Value] | None) -> Value:
    hook: dict[str, Value] = {"url": url, "send_resolved": True}
    return hook | {"http_config": {"authorization": authorization}} if authorization else hook


def _people(spec: ReceiverSpec) -> dict[str, Value]:
    if spec.slack:
        return {"slack_configs": [{"api_url_file": spec.slack.removeprefix("file:"), "send_resolved": True, **_SLACK}]}
    token = {"type": "Bearer", "credentials_file": spec.token.removeprefix("file:")} if spec.token else None
    return {"webhook_configs": [_hook(spec.webhook, token)]}


_SLACK: Mapping[str, Value] = {
    "title": "{{ .CommonLabels.severity }} {{ .CommonLabels.level }} {{ .CommonLabels.service }}",
    "text": "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.runbook_url }}\n{{ end }}",
}
