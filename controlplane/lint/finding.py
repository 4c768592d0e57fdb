"""What is wrong with a rendered file, and how much of it holds: findings and scores; pure.

Every query, link and proof is one check. A check that holds counts 1, one with a warning a half, one with an error
nothing; a score is the share of what counts, rounded down, so that 100 means that nothing was found.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import floor


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """A person would be misled at night: an alert that cannot fire, an empty panel, a link to nowhere."""
    WARN = "warn"
    """It holds less than it should: nothing there now, a proof too old."""
    NOTE = "note"
    """As it should be, and good to know; costs nothing."""


_COUNTS = {Severity.ERROR: 0.0, Severity.WARN: 0.5, Severity.NOTE: 1.0}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about one place of a file."""

    severity: Severity
    rule: str
    """A short name, such as `unknown-series`."""
    path: str
    where: str
    """The alert, panel or line."""
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    path: str
    where: str
    kind: str
    """`query`, `link` or `proof`."""
    findings: tuple[Finding, ...] = ()

    @property
    def counts(self) -> float:
        """Its share (0..1) of what it could count."""
        return min((_COUNTS[f.severity] for f in self.findings), default=1.0)


@dataclass(frozen=True, slots=True)
class Score:
    """How one file, or all of them, came out."""

    checks: int
    errors: int
    warnings: int
    score: int
    """0..100."""


def score(checks: Sequence[Check]) -> Score:
    """Score some checks; none at all are a 100, since nothing was found."""
    found = [f.severity for check in checks for f in check.findings]
    share = sum(check.counts for check in checks) / len(checks) if checks else 1.0
    return Score(
        len(checks), found.count(Severity.ERROR), found.count(Severity.WARN), floor(100 * share + 1e-9)
    )  # fmt: skip


def by_file(checks: Iterable[Check], paths: Iterable[str]) -> Mapping[str, Score]:
    """Score every file, those without a check as well; paths in order."""
    grouped: dict[str, list[Check]] = {path: [] for path in sorted(paths)}
    for check in checks:
        grouped.setdefault(check.path, []).append(check)
    return {path: score(mine) for path, mine in grouped.items()}
