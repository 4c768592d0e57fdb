"""How fresh a runbook's proof is, and whether people's notes have a place on it; pure.

A page says itself what proves it, in a line that begins with `**Proven on DATE` or `**Not proven`; what it says is what
somebody reads at night, so that is what is judged.
"""

import re
from collections.abc import Sequence
from datetime import date, timedelta

from controlplane.lint.artefact import Artefact, Kind
from controlplane.lint.finding import Check, Finding, Severity
from controlplane.render.markdown import NOTES_BEGIN, NOTES_END

_PROVEN = re.compile(r"^\*\*Proven on (\d{4}-\d{2}-\d{2})", re.MULTILINE)
_NOT_PROVEN = re.compile(r"^\*\*Not proven:?\*\*:?[ ]*(.*)$", re.MULTILINE)
_PASSED_ON = re.compile(r"last passed on (\d{4}-\d{2}-\d{2})")
_HEADED = re.compile(r"\A<!-- rendered from ")
_UNTOUCHED = re.compile(r"\A\s*(?:Nothing yet\b.*)?\s*\Z", re.DOTALL)


def check_freshness(artefacts: Sequence[Artefact], period: timedelta, today: date) -> tuple[Check, ...]:
    """Judge every rendered runbook.

    Args:
        artefacts: the files, read.
        period: how old a proof may be: what the plans of the policy call overdue.
        today: the day it is, in UTC.
    """
    checks = []
    for page in artefacts:
        if page.kind is Kind.RUNBOOK and _HEADED.match(page.text):
            if (found := _proof(page, period, today)) is not None:
                checks.append(Check(page.path, "proof", "proof", found))
            checks.append(Check(page.path, "notes", "proof", _notes(page)))
    return tuple(checks)


def _proof(page: Artefact, period: timedelta, today: date) -> tuple[Finding, ...] | None:
    """Judge what a page says of its proof; None for a page that proves nothing."""
    proven, missing = _PROVEN.search(page.text), _NOT_PROVEN.search(page.text)
    rehearse = "run the row's drill, or let the schedule run it, and render"
    if proven is None and missing is None:
        return None
    if proven is None:
        passed = _PASSED_ON.search(missing[1]) if missing else None
        rule = "proof-lost" if passed else "never-proven"
        what = f"its newest drill did not pass; it last did on {passed[1]}" if passed else "no drill has ever proved it"
        return (Finding(Severity.WARN, rule, page.path, "proof", what, rehearse),)
    try:
        age = today - date.fromisoformat(proven[1])
    except ValueError:
        return (Finding(Severity.ERROR, "stale-proof", page.path, "proof", f"{proven[1]} is no day", rehearse),)
    if age > period:
        what = f"its proof is of {proven[1]}, {age.days} days ago; after {period.days} days a drill is overdue"
        return (Finding(Severity.ERROR, "stale-proof", page.path, "proof", what, rehearse),)
    return ()


def _notes(page: Artefact) -> tuple[Finding, ...]:
    begin, end = page.text.find(NOTES_BEGIN), page.text.rfind(NOTES_END)
    if begin < 0 or end < begin:
        what = "it has no place for people's notes: the next rendering loses what they write"
        fix = f"put `{NOTES_BEGIN}` and `{NOTES_END}` back, or render"
        return (Finding(Severity.ERROR, "no-notes-place", page.path, "notes", what, fix),)
    if _UNTOUCHED.match(page.text[begin + len(NOTES_BEGIN) : end]):
        what = "nobody has written a note on it yet"
        return (Finding(Severity.NOTE, "no-notes", page.path, "notes", what),)
    return ()
