"""An incident's report tells times, signals, budget and follow-ups, and lets nothing hostile through."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import timedelta

import pytest

from controlplane.degradation.actuator import ReceiptState
from controlplane.incidents.incident import Entry
from controlplane.render.reports.charts import BOTTOM, LEFT, RIGHT, TOP
from controlplane.render.reports.incident import budget_spent, follow_ups, html_report, markdown_report
from tests.support import incident_pages, overviews
from tests.support.runbook_pages import prose

VIEW = overviews.failover()
REPORT = incident_pages.report(VIEW, VIEW.incidents[1])


def test_the_report_tells_times_actions_signals_causes_and_follow_ups() -> None:
    page = markdown_report(REPORT)
    for said in (
        "# Incident `inc-20261121-030401`", "**primary is unavailable**", "300 s: kept", "0.50 s",
        "decided 0.00 s; applied 0.05 s; verified 0.50 s", "at worst 20%", "node loss (all 2 endpoints of node-a",
        "- 03:04:01.050000 detected: primary: endpoints", "- [ ] Confirm or rule out: node loss",
    ):  # fmt: skip
        assert said in page, said


def test_the_budget_is_what_failed_of_what_may_fail() -> None:
    (spent,) = budget_spent(REPORT)
    assert spent.bad_s == pytest.approx(2.0)  # a fifth of the requests, for ten seconds
    assert spent.ratio == pytest.approx(2.0 / (0.0005 * 30 * 86_400))


def test_what_is_still_unknown_of_the_budget_is_not_said() -> None:
    assert budget_spent(replace(REPORT, history=())) == ()
    assert "No signals are kept of it" in markdown_report(replace(REPORT, history=()))
    assert "No signals are kept of it" in html_report(replace(REPORT, history=()))


def test_a_promise_that_was_missed_names_the_phase_that_cost_it() -> None:
    late = replace(REPORT, promise=timedelta(milliseconds=100))
    (line,) = (line for line in follow_ups(late) if "promises" in line)
    assert line.startswith("Row P0 took 0.5 s and promises 0.1 s: ")
    assert line.endswith("s of it until it was verified.")


def test_a_failed_action_a_refusal_and_an_unrehearsed_row_are_followed_up() -> None:
    failed = replace(REPORT.receipts[0], state=ReceiptState.FAILED, detail="Envoy refused it")
    refused = Entry(VIEW.now, "gate", "P0 refused: the standby gave no completion")
    report = replace(
        REPORT, receipts=(failed,), timeline=(refused,), incident=replace(REPORT.incident, drill_id="")
    )  # fmt: skip
    said = "\n".join(follow_ups(report))
    for part in ("Envoy refused it", "the standby gave no completion", "Rehearse row P0"):
        assert part in said


def test_every_chart_stays_inside_its_picture_and_breaks_where_nothing_was_known() -> None:
    page = html_report(REPORT)
    pictures = [ET.fromstring(drawn) for drawn in re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)]  # noqa: S314
    assert len(pictures) == 2
    broken = 0
    for picture in pictures:
        lines = [e for e in picture.iter() if e.tag.endswith("polyline")]
        broken = max(broken, len(lines))
        for line in lines:
            for pair in line.attrib["points"].split():
                x, y = (float(part) for part in pair.split(","))
                assert LEFT <= x <= RIGHT
                assert TOP <= y <= BOTTOM
    assert broken == 2
    assert "style=" not in page


def test_a_page_that_is_read_alone_holds_its_style() -> None:
    assert "<style>main { color: red }</style>" in html_report(REPORT, "main { color: red }")
    assert "<link" not in html_report(REPORT, "x")


def test_hostile_texts_come_out_as_text() -> None:
    report = incident_pages.hostile_report()
    page = html_report(report)
    assert "<script>" not in page
    assert "<img" not in page
    text = markdown_report(report)
    assert not re.search(r"(?<!\\)<", prose(text))
    assert "\u202e" not in text
    assert max(len(line) for line in text.splitlines()) < 2_000
