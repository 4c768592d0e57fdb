"""promtool's unit tests of every alert, made from the proofs the alerts carry; pure.

`promtool test rules` runs them. Each says of one alert that it is silent while its series are well, that it fires when
they are not, with these labels and this text, and that it is gone when they are well again.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.proof import DAYS_STEP, SLOW_STEP, STEP, expand, values
from controlplane.render.alerting.rules import Alert, Group, Links, annotations_of, labels_of
from controlplane.render.alerting.yaml_text import Value, dump

PACES = {STEP: "", SLOW_STEP: ".hours", DAYS_STEP: ".days"}
"""By the step of the proofs: what the file's name has besides. A page for each, since promtool evaluates every rule at
the one pace of the file; days by seconds would take it an hour."""


def pages(
    header: str, groups: Sequence[Group], service: str, links: Links, rules: str, slug: str
) -> Iterable[tuple[str, str]]:
    """Give the pages of unit tests by name.

    Args:
        header: the comment at the top, one line each.
        groups: the rules.
        service: whose they are.
        links: where runbooks and dashboards are served.
        rules: the rule file, relative to the pages.
        slug: how the pages' names begin.
    """
    alerts = [alert for group in groups for alert in group.alerts]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    for step, middle in PACES.items():
        mine = [alert for alert in alerts if alert.proof.step == step]
        name = f"{slug}{middle}.tests.yml"
        head: dict[str, Value] = {"rule_files": [rules], "evaluation_interval": spell_duration(step)}
        body = dump({**head, "tests": [_test(alert, service, links) for alert in mine]})
        yield name, f"{comment}#   promtool test rules {name}\n{body}"


def _test(alert: Alert, service: str, links: Links) -> dict[str, Value]:
    proof = alert.proof
    parts = proof.steps(alert.dwell)
    well, ill = parts[0] - 1, parts[0] + parts[1] - 1
    end = sum(parts) - 1
    series: list[Value] = [{"series": wave.series, "values": values(wave, parts)} for wave in proof.waves]
    silent_at = () if not proof.waves else (well, end)
    checks: list[Value] = [
        {"eval_time": _at(proof.step * ill), "alertname": alert.name, "exp_alerts": [_expected(alert, service, links)]},
        *({"eval_time": _at(proof.step * at), "alertname": alert.name, "exp_alerts": []} for at in silent_at),
    ]
    told = ", ".join(value for name, value in alert.labels.items() if name not in ("outranks", "band"))
    return {
        "name": f"{alert.name} {told}".strip() if told.isascii() and len(told) < 80 else alert.name,
        "interval": spell_duration(proof.step),
        "input_series": series,
        "alert_rule_test": checks,
    }


def _at(value: timedelta) -> str:
    return spell_duration(value)


def _expected(alert: Alert, service: str, links: Links) -> dict[str, Value]:
    sample = alert.proof.labels
    labels = {**sample, **{k: expand(v, sample, alert.proof.value) for k, v in labels_of(alert, service).items()}}
    said = {k: expand(v, sample, alert.proof.value) for k, v in annotations_of(alert, links).items()}
    return {"exp_labels": {k: v for k, v in labels.items() if v}, "exp_annotations": said}
