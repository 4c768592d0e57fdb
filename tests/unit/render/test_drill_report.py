"""A drill's report says everything that is known, draws its timeline, and lets nothing hostile through."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from controlplane.chaos.drill import Drill, DrillPhase, Event, Measured, Outcome
from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.fleet.model import Endpoint
from controlplane.render.reports.drill import LEFT, WIDTH, Report, html_report, markdown_report, timeline

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>|`x`\n# no"


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


PHASES = {
    DrillPhase.FAULT: at(0), DrillPhase.DETECTED: at(0.5), DrillPhase.DECIDED: at(0.6), DrillPhase.ACTED: at(0.7),
    DrillPhase.VERIFIED: at(0.8), DrillPhase.HEALED: at(8), DrillPhase.RECOVERED: at(12),
}  # fmt: skip
DRILL = Drill(
    "abc", "node-kill", "P0", timedelta(minutes=5), "ann", at(-2), "monthly/x", Outcome.PASSED, (), at(14), PHASES,
    "/state/journals/node-kill.json", {"before": Measured(100, 0, 0.2, 0.25), "during": Measured(400, 1)},
)  # fmt: skip
LEASE = Lease(
    "l", "abc", FaultKind.NODE_KILL, Endpoint("primary-0", "primary", "http://x"), at(8), LeaseState.HEALED, at(-0.1),
    at(0), at(0.1), at(8),
)  # fmt: skip
REPORT = Report(DRILL, (LEASE,), (Event(at(0), "fault", "SIGKILL"),), (DRILL,))


def test_the_report_tells_times_users_faults_score_and_what_happened() -> None:
    page = markdown_report(REPORT)
    for said in (
        "# Drill `node-kill` passed", "MTTD: 0.50 s", "MTTM: 0.80 s", "MTTR: 12.00 s", "restored service: kept",
        "| during | ", "99.7500%", "0.2 s (at most 0.25 s)", "primary-0", "1 of 1", "100%", "fault: SIGKILL",
        "`/state/journals/node-kill.json`", "slot `monthly/x`",
    ):  # fmt: skip
        assert said in page, said
    assert "| after " in page
    assert "not known" in page


def test_the_page_is_drawn_with_every_phase_inside_the_picture() -> None:
    page = html_report(REPORT)
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    drawn = ET.fromstring(svg)  # noqa: S314 - we wrote it
    bars = [(float(r.attrib["x"]), float(r.attrib["width"])) for r in drawn.iter() if r.tag.endswith("rect")]
    assert len(bars) == len(PHASES) == len(timeline(REPORT))
    assert all(x >= LEFT and x + width <= WIDTH for x, width in bars)
    assert "style=" not in page
    assert "<script" not in page


def test_a_drill_that_broke_nothing_has_no_picture_and_says_so() -> None:
    nothing = replace(DRILL, outcome=Outcome.INVALID, reasons=("no fault was injected",), phases={}, users={})
    report = Report(nothing, (), (), (nothing,))
    assert timeline(report) == ()
    assert "No fault was injected." in html_report(report)
    assert "no fault was injected" in markdown_report(report)
    assert "never" in markdown_report(report)


def test_hostile_texts_come_out_as_text() -> None:
    hostile = replace(DRILL, reasons=(HOSTILE,), requested_by=HOSTILE, outcome=Outcome.FAILED)
    report = Report(hostile, (LEASE,), (Event(at(0), "step", HOSTILE),), (hostile,))
    assert "<script>" not in html_report(report)
    page = markdown_report(report)
    assert "\\<script\\>" in page
    assert "\n# no" not in page
