"""Proofs grow old, notes have a place, and a score says how much holds."""

from datetime import date, timedelta

import pytest

from controlplane.lint.artefact import read
from controlplane.lint.finding import Check, Finding, Severity, by_file, score
from controlplane.lint.freshness import check_freshness

HEAD = "<!-- rendered from a.yaml by `controlplane render`; edit a.yaml -->\n\n# P0\n\n"
NOTES = "<!-- notes:begin -->\nAsk Ada first.\n<!-- notes:end -->\n"
DAY = date(2026, 11, 22)


def rules(text: str) -> list[tuple[str, str]]:
    checks = check_freshness([read("runbooks/P0.md", text)], timedelta(days=38), DAY)
    return [(finding.rule, finding.severity) for check in checks for finding in check.findings]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("**Proven on 2026-11-20:** detected to verified in 1 s.", []),
        ("**Proven on 2026-10-15:** in 1 s.", []),
        ("**Proven on 2026-10-14:** in 1 s.", [("stale-proof", "error")]),
        ("**Proven on 2026-99-14:** in 1 s.", [("stale-proof", "error")]),
        ("**Not proven:** no drill has proved this row yet.", [("never-proven", "warn")]),
        (
            "**Not proven:** the newest drill (2026-11-20) ended as failed. It has never passed.",
            [("never-proven", "warn")],
        ),
        ("**Not proven:** the newest drill ended as failed. It last passed on 2026-11-01.", [("proof-lost", "warn")]),
        ("An alert's page; the row is **Not proven:** elsewhere.", []),
    ],
)
def test_a_page_is_judged_by_what_it_says_of_its_proof(said: str, found: list[tuple[str, str]]) -> None:
    assert rules(f"{HEAD}{said}\n\n{NOTES}") == found


@pytest.mark.parametrize(
    ("notes", "found"),
    [
        (NOTES, []),
        ("<!-- notes:begin -->\nNothing yet. Worth writing down: x.\n<!-- notes:end -->", [("no-notes", "note")]),
        ("<!-- notes:end -->\n<!-- notes:begin -->", [("no-notes-place", "error")]),
        ("", [("no-notes-place", "error")]),
    ],
)
def test_notes_need_their_place(notes: str, found: list[tuple[str, str]]) -> None:
    assert rules(f"{HEAD}{notes}") == found


def test_a_page_that_nobody_rendered_is_left_alone() -> None:
    assert rules("# Mine\n\n**Not proven:** x\n") == []


def check(path: str, *severities: Severity) -> Check:
    return Check(path, "w", "query", tuple(Finding(s, "r", path, "w", "what") for s in severities))


def test_a_score_is_the_share_of_checks_that_hold() -> None:
    checks = [
        check("a"),
        check("a", Severity.NOTE),
        check("a", Severity.WARN),
        check("b", Severity.ERROR, Severity.WARN),
    ]
    total = score(checks)
    assert (total.checks, total.errors, total.warnings, total.score) == (4, 1, 2, 62)
    files = by_file(checks, ["b", "c", "a"])
    assert {path: came.score for path, came in files.items()} == {"a": 83, "b": 0, "c": 100}


def test_a_hundred_means_that_nothing_was_found() -> None:
    assert score([*(check("a") for _ in range(999)), check("a", Severity.WARN)]).score == 99
    assert score([]).score == 100
