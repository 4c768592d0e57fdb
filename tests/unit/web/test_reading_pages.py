"""Runbooks and incidents on the console: values of now, no live markup of anybody's, links that lead somewhere."""

import re
from dataclasses import replace

import pytest

from controlplane.web.frame import Frame
from controlplane.web.incidents import incident_sheet, page_of
from controlplane.web.reading import html_of, section
from controlplane.web.runbooks import runbook_sheet, view_of
from tests.support import incident_pages, overviews
from tests.unit.web.test_api import Server, server
from tests.unit.web.test_console import Page

__all__ = ["server"]
VIEW = overviews.failover()
VIEWER = Frame("mei", "viewer")
INCIDENT = VIEW.incidents[1].incident.id
NASTY = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> [a](javascript:alert(1)) [b](data:text/html,x) "
    "![c](http://evil/x.png) [d](//evil/x) [e](../../../etc/passwd) {{ 7*7 }} \u202egnp 😀 **bold**"
)


async def book(name: str, notes: str = "") -> Page:
    view = await view_of(incident_pages.ports(VIEW, notes=notes).runbooks, name)
    assert view is not None
    return Page(runbook_sheet(view).page(VIEWER, "/x"))


@pytest.mark.parametrize("name", sorted(incident_pages.ports(VIEW).runbooks.subjects))
async def test_every_runbook_is_a_whole_page(name: str) -> None:
    page = await book(name)
    assert page.misnested == []
    assert [d for d in page.all("table") if d.get("style")] == []
    assert all("style" not in attributes for _, attributes in page.elements)
    assert len([tag for tag, _ in page.elements if tag == "h1"]) == 1


async def test_a_runbook_shows_what_holds_now_beside_its_thresholds_and_the_open_incident() -> None:
    text = (await book("P0-switch-to-standby")).text
    assert "Row P0 is engaged" in text
    assert "endpoints_down primary 100%" in text
    assert "availability primary 0% ✕ breach 95% 90%" in text
    page = await book("P0-switch-to-standby")
    assert f"/incidents/{INCIDENT}" in [a["href"] for a in page.all("a")]


async def test_links_between_runbooks_lead_to_pages_that_there_are() -> None:
    ports = incident_pages.ports(VIEW).runbooks
    for name in ports.subjects:
        for link in (await book(name)).all("a"):
            href = link["href"]
            if href.startswith("/runbooks/"):
                assert href.removeprefix("/runbooks/") in ports.subjects, f"{name}: {href}"


async def test_what_people_wrote_is_shown_as_text_and_markdown_and_never_runs() -> None:
    page = await book("alerts/LatencyP99Breach", NASTY)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7*7 }}" in page.text
    assert [tag for tag, _ in page.elements if tag == "img"] == []
    assert [a["src"] for a in page.all("script") if not a["src"].startswith("/static/")] == []
    hrefs = [a["href"] for a in page.all("a")]
    assert [h for h in hrefs if re.match(r"(?i)\s*(javascript|data|vbscript|file):|//", h)] == []
    assert [h for h in hrefs if "etc/passwd" in h] == []
    assert "notes:begin" not in page.text
    assert "revisions:begin" not in page.text


def test_a_section_of_a_page_is_cut_at_the_next_one() -> None:
    assert section("## A\n\nx\n\n### b\n\ny\n\n## C\n\nz\n", "A") == "## A\n\nx\n\n### b\n\ny\n\n"
    assert section("## A\n", "B") == ""
    assert "<h2>A</h2>" in html_of("## A\n", "x")


async def test_an_incident_shows_what_was_what_is_what_was_done_and_what_to_do() -> None:
    ports = incident_pages.ports(VIEW)
    page = Page(incident_sheet(await page_of(ports, incident_pages.report(VIEW, VIEW.incidents[1]))).page(VIEWER, "/x"))
    assert page.misnested == []
    for said in (
        "primary is unavailable", "Users served again: after 500 ms of 5 min promised: ✓ kept",
        "Took 0.154% of the error budget of availability", "At the trigger", "error_rate gateway 20% 0.62%",
        "node loss (all 2 endpoints of node-a are down)", "switch_pool to standby ✓ verified ✓ within the promise",
        "applied 50 ms", "Ask pool standby whether it can serve", "Confirm or rule out",
    ):  # fmt: skip
        assert said in page.text, said
    assert len([svg for svg in page.all("svg") if svg.get("role") == "img"]) == 2
    assert all(svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img")


async def test_a_hostile_incident_is_text() -> None:
    report = incident_pages.hostile_report()
    view = replace(overviews.hostile(), incidents=())
    page = Page(incident_sheet(await page_of(incident_pages.ports(view, {}), report)).page(VIEWER, "/x"))
    assert page.misnested == []
    assert [tag for tag, _ in page.elements if tag == "img"] == []
    assert [a for a in page.all("script") if not a.get("src", "").startswith("/static/")] == []
    assert '<script>alert("x")</script>' in page.text


async def test_the_pages_are_served_and_what_is_not_there_is_not_found(server: Server) -> None:
    for path in (
        "/runbooks", "/runbooks/alerts", "/runbooks/alerts/Watchdog.md", "/runbooks/alerts/Watchdog/fragment",
        "/runbooks/P0-switch-to-standby", "/api/v1/runbooks/P0-switch-to-standby", f"/incidents/{INCIDENT}",
        f"/incidents/{INCIDENT}/fragment", f"/incidents/{INCIDENT}/report",
    ):  # fmt: skip
        answer = await server.get(path)
        assert answer.status == 200, path
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    for path in ("/runbooks/nope", "/incidents/nope", "/api/v1/incidents/nope/report", "/runbooks/%2e%2e/alerts"):
        answer = await server.get(path)
        assert (answer.status, answer.is_problem) == (404, True), path
    told = (await server.get(f"/api/v1/incidents/{INCIDENT}/report")).json
    assert told["within_objective"] is True
    assert told["markdown"].startswith("# Incident")
    assert "<link" not in told["html"]
