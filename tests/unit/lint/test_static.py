"""Our own series are judged without a Prometheus."""

import json

import pytest

from controlplane.lint.artefact import read
from controlplane.lint.static import check_query
from controlplane.lint.variables import fill, used
from controlplane.runtime.linting import known_of, period
from controlplane.telemetry import Metrics
from tests.golden.cases import policy

KNOWN = known_of(policy("full"))
SERVICE = policy("full").service


def found(expr: str) -> list[tuple[str, str]]:
    page = read("alerts/a.yml", json.dumps({"groups": [{"rules": [{"alert": "A", "expr": expr}]}]}))
    (query,) = page.queries
    return [(finding.rule, f"{finding.what} {finding.fix}") for finding in check_query(query, page, KNOWN)]


@pytest.mark.parametrize(
    "expr",
    [
        f'controlplane_signal_value{{service="{SERVICE}", pool=~"gateway|primary", signal="latency_p99"}} > 1',
        'rate(controlplane_probes_total{probe="http", result!="ok"}[1m]) > 0',
        'sum by (le) (rate(controlplane_switch_seconds_bucket{phase="verified", le="5.0"}[1h]))',
        'controlplane_leader{job="x", instance="y", cluster="z"}',
        "anything{of='others'}",
    ],
)
def test_what_the_control_plane_exposes_is_fine(expr: str) -> None:
    assert found(expr) == []


@pytest.mark.parametrize(
    ("expr", "rule", "says"),
    [
        ("controlplane_signal_valu > 1", "unknown-series", "did it mean controlplane_signal_value"),
        ('controlplane_level{pool="x"}', "unknown-label", "no label `pool`"),
        ('controlplane_signal_value{signal="latencyp99"}', "unknown-value", "did it mean latency_p99"),
        ('controlplane_signal_value{signal=~"availability|availbility"}', "unknown-value", "availbility"),
        ('controlplane_verdict{verdict="broken"}', "unknown-value", "there is no verdict `broken`"),
        ('controlplane_probes_total{result="refuse"}', "unknown-value", "did it mean refused"),
        ("sum(", "syntax", "at character 4"),
    ],
)
def test_what_it_does_not_expose_is_an_error(expr: str, rule: str, says: str) -> None:
    ((told, what),) = found(expr)
    assert told == rule
    assert says in what


def test_every_series_of_ours_is_known_with_the_labels_it_has() -> None:
    for family in Metrics().registry.collect():
        for sample in family.samples:
            if sample.name.startswith("controlplane_"):
                assert set(sample.labels) <= KNOWN.own[sample.name], sample.name


def test_a_variable_is_filled_in_as_grafana_would() -> None:
    text = 'x{a="$a", b=~"${b:regex}", c!="$a"} > $n and label_replace(y, "d", "$1", "e", "(.*)")[$__range:]'
    assert used(text) == ("a", "b", "n", "__range")
    assert fill(text, {"a": ["p", "q.r"], "n": ["5"]}) == (
        'x{a=~"p|q\\\\.r", b=~".*", c!~"a^"} > 5 and label_replace(y, "d", "$1", "e", "(.*)")[1h:]'
    )


def test_the_shortest_plan_says_how_old_a_proof_may_be() -> None:
    plans = policy("full").drills
    assert period({}).days == 38
    assert period(plans) == min((plan.overdue_after for plan in plans.values()), default=period({}))
