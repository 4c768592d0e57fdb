"""Queries judged from the files alone: grammar, variables, and our own series, whose labels are known; pure."""

from collections.abc import Mapping
from difflib import get_close_matches

from controlplane.lint.artefact import Artefact, Kind, Query
from controlplane.lint.finding import Finding, Severity
from controlplane.lint.known import OWN, TARGET_LABELS, Known
from controlplane.lint.promql import NotPromqlError, Selector, parse, selectors
from controlplane.lint.variables import fill, undefined


def values_told(board: Artefact | None) -> Mapping[str, tuple[str, ...]]:
    """Return what a dashboard's variables stand for as far as its file tells."""
    return {name: variable.values for name, variable in (board.variables if board else {}).items() if variable.values}


def check_query(query: Query, page: Artefact, known: Known) -> tuple[Finding, ...]:
    """Return what is wrong with a query of a file, without asking anybody."""
    found: tuple[Finding, ...] = ()
    text = query.text
    if page.kind is Kind.DASHBOARD:
        found = undefined(query, page)
        text = fill(text, values_told(page))
    try:
        node = parse(text)
    except NotPromqlError as error:
        return *found, Finding(Severity.ERROR, "syntax", query.path, query.where, f"it is no PromQL: {error}")
    for selector in dict.fromkeys(selectors(node)):
        found += own_series(query, selector, known)
    return found


def own_series(query: Query, selector: Selector, known: Known) -> tuple[Finding, ...]:
    """Judge a selector on a series of ours by what the control plane can expose."""
    name = selector.name
    if not name.startswith(OWN) or name in known.records:
        return ()
    if name not in known.own:
        return (_wrong(query, "unknown-series", f"the control plane exposes no `{name}`", name, known.own),)
    found = []
    for matcher in selector.matchers:
        labels = known.own[name] | TARGET_LABELS
        if matcher.label not in labels and "" not in matcher.wants:
            what = f"`{name}` has no label `{matcher.label}`"
            found.append(_wrong(query, "unknown-label", what, matcher.label, known.own[name]))
        elif (there := known.values.get(matcher.label)) is not None and matcher.label in known.own[name]:
            for value in matcher.wants:
                if value and value not in there and matcher.operator in ("=", "=~"):
                    what = f"`{matcher.text}` of `{name}` never matches: there is no {matcher.label} `{value}`"
                    found.append(_wrong(query, "unknown-value", what, value, there))
    return tuple(found)


def _wrong(query: Query, rule: str, what: str, said: str, there: Mapping[str, object] | frozenset[str]) -> Finding:
    near = get_close_matches(said, sorted(there), 1)
    fix = f"did it mean {near[0]}?" if near else f"there are: {', '.join(sorted(there)[:8])}" if there else ""
    return Finding(Severity.ERROR, rule, query.path, query.where, what, fix)
