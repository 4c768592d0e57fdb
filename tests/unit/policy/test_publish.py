"""The page's `publish`: how alerts travel, and who is told."""

from pathlib import Path

import pytest

from controlplane.errors import PolicyError
from controlplane.policy.load import loads
from controlplane.policy.model import PublishSpec

FLEET = 'service: x\nfleet: { pools: { primary: { endpoints: { static: ["http://10.0.0.1:80"] } } } }\n'
RECEIVERS = """degradation:
  receivers:
    hook: { webhook: "http://a/b", token: "file:/t" }
    chat: { slack: "file:/s" }
    env: { slack: "env:S" }
    am: { alertmanager: "http://am:9093" }
    secret: { webhook: "http://a/b", token: "env:T" }
    hidden: { webhook: "file:/u" }
"""


def publish(text: str) -> PublishSpec:
    return loads(f"{FLEET}{RECEIVERS}publish: {text}\n", Path("p.yaml")).policy.publish


def test_defaults_are_those_of_the_spec() -> None:
    assert publish("{}") == PublishSpec()


def test_people_are_named_by_severity() -> None:
    assert publish("{ notify: { critical: hook, warning: chat } }").notify == {"critical": "hook", "warning": "chat"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{ scrape: 0s }", "`publish.scrape: 0s` is no pace"),
        ("{ evaluation: 1500ms }", "`publish.evaluation: 1s500ms` is no pace"),
        ("{ control: here }", "`publish.control: here` is no URL"),
        ("{ grafana: ftp://x }", "`publish.grafana: ftp://x` is no URL"),
        ("{ notify: { crtical: hook } }", "unknown key `publish.notify.crtical`"),
        ("{ notify: { critical: nobody } }", "`publish.notify.critical: nobody` cannot be told by Alertmanager"),
        ("{ notify: { critical: env } }", "`publish.notify.critical: env` cannot be told by Alertmanager"),
        ("{ notify: { critical: am } }", "`publish.notify.critical: am` cannot be told by Alertmanager"),
        ("{ notify: { critical: secret } }", "`publish.notify.critical: secret` cannot be told by Alertmanager"),
        ("{ notify: { critical: hidden } }", "`publish.notify.critical: hidden` cannot be told by Alertmanager"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(text: str, what: str) -> None:
    with pytest.raises(PolicyError) as error:
        publish(text)
    (problem,) = error.value.problems
    assert problem.what == what
    assert problem.fix
