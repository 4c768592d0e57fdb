"""All checks of all files, put together; pure but for the port to a Prometheus. Called by `runtime/linting`."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from controlplane.lint.artefact import Artefact, Kind
from controlplane.lint.finding import Check, Finding, Severity
from controlplane.lint.freshness import check_freshness
from controlplane.lint.known import Known
from controlplane.lint.links import check_links
from controlplane.lint.live import Live
from controlplane.lint.static import check_query


@dataclass(frozen=True, slots=True)
class Outside:
    """What is known beside the files."""

    files: Container[str]
    """Every path there is, relative to the directory everything is published in."""
    period: timedelta
    """How old a proof may be."""
    today: date
    answers: Mapping[str, str] | None = None
    """Why an address of a link does not answer, empty where it does; None when nobody was asked."""
    live: Live | None = None
    """None without a Prometheus."""


def check_all(artefacts: Sequence[Artefact], known: Known, outside: Outside) -> tuple[Check, ...]:
    """Run every check there is over the files."""
    records = {query.where: query.text for page in artefacts for query in page.queries if query.role == "record"}
    known = replace(known, records={**known.records, **records})
    if outside.live:
        outside.live.known = known
    return (
        *(_broken(page) for page in artefacts if page.kind is Kind.BROKEN),
        *(check for page in artefacts for check in _queries(page, known, outside.live)),
        *check_links(artefacts, outside.files, outside.answers),
        *check_freshness(artefacts, outside.period, outside.today),
    )


def _queries(page: Artefact, known: Known, live: Live | None) -> tuple[Check, ...]:
    checks = []
    for query in page.queries:
        found = check_query(query, page, known)
        if live and not found:
            found = live.check(query, page)
        checks.append(Check(query.path, query.where, "query", found))
    return tuple(checks)


def _broken(page: Artefact) -> Check:
    what = f"it cannot be read: {page.problem}"
    return Check(page.path, "file", "query", (Finding(Severity.ERROR, "broken-file", page.path, "file", what),))
