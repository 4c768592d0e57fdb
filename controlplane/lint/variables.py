"""Grafana's variables in queries, put in as Grafana would: the dashboard's own and the built-in ones; pure."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from controlplane.lint.artefact import Artefact, Query
from controlplane.lint.finding import Finding, Severity
from controlplane.render.promql import one_of, quoted

BUILT_IN = {
    "__rate_interval": "1m", "__interval": "1m", "__interval_ms": "60000", "__range": "1h", "__range_s": "3600",
    "__range_ms": "3600000", "__from": "0", "__to": "0", "__all": ".*", "__name": ".*", "__timeFilter": "",
}  # fmt: skip
"""What Grafana knows by itself, as a panel of an hour at a step of a minute has it."""

_USE = r"\$\{(?P<braced>[a-zA-Z_]\w*)(?::[\w-]+)?\}|\[\[(?P<old>[a-zA-Z_]\w*)(?::[\w-]+)?\]\]|\$(?P<bare>[a-zA-Z_]\w*)"
_ANY = re.compile(_USE)
_WHOLE = re.compile(rf"(?P<operator>=~|!~|!=|=)\s*(?P<quote>[\"'])(?:{_USE})(?P=quote)")
"""A matcher whose whole value is one variable."""


def used(text: str) -> tuple[str, ...]:
    """Return the variables a query uses, each once."""
    return tuple(dict.fromkeys(_name(found) for found in _ANY.finditer(text)))


def fill(text: str, values: Mapping[str, Sequence[str]]) -> str:
    """Put variables' values into a query.

    A matcher on a variable asks for any of its values: what one of them finds, a person can choose. A variable that
    stands for nothing known matches everything.
    """

    def whole(found: re.Match[str]) -> str:
        name = _name(found)
        known = tuple(values.get(name, ()))
        if name in BUILT_IN and name not in values:
            return f'{found["operator"]}"{BUILT_IN[name]}"'
        if found["operator"] in ("!=", "!~"):
            return '!~"a^"'  # Excluding what a person would choose excludes nothing here.
        if any(value in ("$__all", ".*", ".+") for value in known) or not known:
            return '=~".*"'
        return f"={quoted(known[0])}" if len(known) == 1 else f"=~{one_of(known)}"

    def anywhere(found: re.Match[str]) -> str:
        name = _name(found)
        known = values.get(name, ())
        return known[0] if known else BUILT_IN.get(name, ".*")

    return _ANY.sub(anywhere, _WHOLE.sub(whole, text))


def undefined(query: Query, board: Artefact) -> tuple[Finding, ...]:
    """Return a finding for every variable of a query that its dashboard does not have."""
    there = {*board.variables, *BUILT_IN}
    found = []
    for name in used(query.text):
        if name not in there and not name.startswith("__"):
            near = get_close_matches(name, there, 1)
            fix = f"did it mean ${near[0]}?" if near else "define it, or write a value"
            what = f"`${name}` is no variable of this dashboard"
            found.append(Finding(Severity.ERROR, "undefined-variable", query.path, query.where, what, fix))
    return tuple(found)


def _name(found: re.Match[str]) -> str:
    return found["braced"] or found["old"] or found["bare"]
