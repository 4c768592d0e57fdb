"""Links lead somewhere, or are told."""

import json
from collections.abc import Mapping

import pytest

from controlplane.lint.artefact import read
from controlplane.lint.finding import Finding
from controlplane.lint.links import addresses, anchors, check_links

RUNBOOK = (
    "# P0: switch!\n\n## Likely causes, and how\n\n## Notes\n\n## Notes\n\n```sh\n# no heading\n```\n<a id='own'></a>\n"
)
BOARD = json.dumps(
    {"uid": "fleet", "panels": [], "templating": {"list": [{"name": "service", "type": "custom", "query": "a"}]}}
)


def found(link: str, answers: Mapping[str, str] | None = None, at: str = "runbooks/b.md") -> list[Finding]:
    pages = [read("runbooks/a.md", RUNBOOK), read("dashboards/f.json", BOARD), read(at, f"# B\n\n[x]({link})\n")]
    checks = check_links(pages, {"alerts/x.yml"}, answers)
    assert len(checks) == 1
    return list(checks[0].findings)


def test_headings_have_the_anchors_that_github_gives_them() -> None:
    assert anchors(RUNBOOK) == {"p0-switch", "likely-causes-and-how", "notes", "notes-1", "own"}


@pytest.mark.parametrize(
    "link", ["a.md", "a.md#notes-1", "a.md#own", "runbooks/a.md#p0-switch", "../alerts/x.yml", "#b",
             "/d/fleet?var-service=x",
             "/d/fleet/a-name", "mailto:a@b.c", "http://example.org/x", "/incidents/1", "/d/${uid}"],
)  # fmt: skip
def test_a_link_that_leads_somewhere_is_fine(link: str) -> None:
    assert found(link) == []


@pytest.mark.parametrize(
    ("link", "says"),
    [("c.md", "no such file"), ("a.md#note", "did it mean #notes"), ("#nowhere", "no heading"),
     ("/d/flet", "did it mean fleet"),
     ("../x/a.md", "no such file")],
)  # fmt: skip
def test_a_link_that_leads_nowhere_is_told(link: str, says: str) -> None:
    (finding,) = found(link)
    assert finding.rule == "dead-link"
    assert says in f"{finding.what} {finding.fix}"


def test_a_variable_that_a_dashboard_does_not_have_is_told() -> None:
    (finding,) = found("/d/fleet?var-service=x&var-pol=y")
    assert (finding.severity, finding.rule) == ("warn", "link-variable")
    assert "`pol`" in finding.what


def test_an_address_is_judged_by_its_answer() -> None:
    asked = {"http://example.org/x": "HTTP 404"}
    (finding,) = found("http://example.org/x#part", asked)
    assert "HTTP 404" in finding.what
    assert found("http://example.org/x", {"http://example.org/x": ""}) == []


def test_addresses_are_asked_once_and_never_with_holes_in_them() -> None:
    page = read("a.md", "[a](http://h/x#1) [b](http://h/x#2) [c](http://h/{{.id}}) [d](http://${host}/) [e](b.md)")
    assert addresses([page]) == ("http://h/x",)
