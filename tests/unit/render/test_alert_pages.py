"""Every alert has a page of its own: what users notice, how to tell causes apart, what to do with check and undo."""

import re
from datetime import timedelta

import pytest

from controlplane.chaos.drill import Outcome
from controlplane.incidents.incident import Incident, IncidentState
from controlplane.policy.model import Policy
from controlplane.render.alerting.groups import groups
from controlplane.render.artefacts import described, render
from controlplane.render.runbooks.alerts import is_known, page_of, ringing
from controlplane.render.runbooks.guides import BY_SIGNAL, of_signal
from controlplane.render.runbooks.named import BY_NAME
from controlplane.signals.sample import CATALOGUE
from tests.golden.cases import DRILLS, drill, hostile_policy, policy
from tests.support.runbook_pages import blocks, steps

POLICIES = pytest.mark.parametrize(
    "of", [policy("minimal"), policy("full"), hostile_policy()], ids=["minimal", "full", "hostile"]
)
SECTIONS = ("What this means", "First look", "Likely causes, and how to tell them apart",
            "What the control plane does by itself", "By hand", "Escalation", "Phases", "Evidence", "Notes",
            "Revision history")  # fmt: skip


def pages(of: Policy) -> dict[str, str]:
    made = render(of, DRILLS, "a.yaml")
    return {path: text for path, text in made.items() if path.startswith("runbooks/alerts/")}


@POLICIES
def test_every_alert_has_a_page_with_every_section(of: Policy) -> None:
    made = pages(of)
    assert set(made) == {page_of(alert.name) for alert in ringing(groups(of))}
    for path, text in made.items():
        assert [s for s in SECTIONS if f"\n## {s}\n" not in text] == [], path
        assert "0-2 h" in text
        assert "Prevention" in text


@POLICIES
def test_every_alert_is_known_by_its_name_or_its_signal(of: Policy) -> None:
    assert [alert.name for alert in ringing(groups(of)) if not is_known(alert)] == []


def test_every_signal_of_the_catalogue_has_a_guide() -> None:
    assert [name for name in CATALOGUE if of_signal(name) is None] == []


def test_no_two_guides_say_the_same_of_users() -> None:
    said = [guide.users for guide in BY_SIGNAL.values()]
    assert len(said) == len(set(said))
    assert all(guide.users and guide.day and guide.later and guide.prevent for guide in BY_NAME.values())


@POLICIES
def test_every_runbook_url_leads_to_a_page_that_there_is(of: Policy) -> None:
    made = render(of, (), "a.yaml")
    led = {alert.runbook for group in groups(of) for alert in group.alerts}
    assert {url.partition("#")[0] for url in led} <= set(made)


@POLICIES
def test_every_link_of_a_page_leads_to_a_page_that_there_is(of: Policy) -> None:
    made = render(of, DRILLS, "a.yaml")
    for path, text in made.items():
        if path.endswith(".md"):
            folder = path.rpartition("/")[0]
            for target in re.findall(r"\]\(([^)]+\.md)\)", text):
                parts: list[str] = []
                for part in f"{folder}/{target}".split("/"):
                    if part == "..":
                        parts.pop()
                    else:
                        parts.append(part)
                assert "/".join(parts) in made, f"{path}: {target}"


@POLICIES
def test_every_step_has_its_check_and_its_undo_and_every_page_its_setup(of: Policy) -> None:
    for path, text in render(of, DRILLS, "a.yaml").items():
        if path.endswith(".md"):
            first = next(blocks(text, "sh"))
            assert first.text.startswith("export CONTROLPLANE_STATE_DIR="), path
            assert steps(text) or path == "runbooks/alerts.md" or "Nothing is to be done by hand" in text


def test_what_is_described_is_what_is_rendered() -> None:
    made, about = render(policy("full"), (), "a.yaml"), described(policy("full"))
    assert {subject.path for subject in about.values()} == {path for path in made if path.endswith(".md")}
    assert about["alerts/LatencyP99Breach"].signals == ("latency_p99",)
    assert about["P0-switch-to-standby"].levels == ("P0",)


def test_real_incidents_stand_beside_drills_with_their_times_against_the_promise() -> None:
    fault = DRILLS[0].started_at
    slow = Incident(
        "x/P0/1", "x", "P0", "primary | <b>gone</b>", IncidentState.RESOLVED, fault, "",
        fault + timedelta(seconds=200), fault + timedelta(seconds=300),
    )  # fmt: skip
    made = render(policy("full"), DRILLS, "a.yaml", (slow,))
    page = made["runbooks/P0-switch-to-standby.md"]
    assert "Real incidents" in page
    assert "\\<b\\>gone" in page
    (line,) = (line for line in page.splitlines() if "`x/P0/1`" in line)
    assert [cell.strip() for cell in line.strip("|").split("|")][-4:] == ["200", "300", "3m", "**no**"]
    rehearsed = Incident("x/P0/2", "x", "P0", "rehearsed", IncidentState.RESOLVED, fault, "a-drill")
    assert "rehearsed" not in render(policy("full"), DRILLS, "a.yaml", (rehearsed,))["runbooks/P0-switch-to-standby.md"]


def test_a_trend_holds_the_newest_drill_against_those_before() -> None:
    faster = drill(20, Outcome.PASSED, detected=0.1, verified=0.3)
    page = render(policy("full"), (faster, DRILLS[1]), "a.yaml")["runbooks/P0-switch-to-standby.md"]
    assert "Trend: 0.20 s, against 0.63 s (the one before): 68% faster." in page
