"""Queries judged by a Prometheus: does each parse, find its series, join, and give something; pure but for its port.

An alert's expression is empty while all is well, so it is not its result that is looked at, but what it is made of:
every selector must find series, every join must have partners, and the expression *without its comparisons*
(`promql.relaxed`) must give something. A selector that finds nothing is asked again without each matcher in turn: the
one without which it finds something is the one that is wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol

from controlplane.lint.artefact import Artefact, Kind, Query, Variable, label_values
from controlplane.lint.finding import Finding, Severity
from controlplane.lint.known import BY_DESIGN, ENGINE_SERIES, Known, series_of
from controlplane.lint.promql import (
    Binary,
    Matcher,
    Node,
    NotPromqlError,
    Selector,
    is_range,
    is_vector,
    joins,
    parse,
    parts,
    relaxed,
    selectors,
)  # fmt: skip
from controlplane.lint.static import values_told
from controlplane.lint.variables import fill

SHOWN = 5
"""How many values or labels a finding lists."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What Prometheus said to one query."""

    series: tuple[Mapping[str, str], ...] = ()
    """Labels of every series that has a number."""
    refused: str = ""
    """Why it gave no answer, in its own words; empty where it did."""


class Asks(Protocol):
    """A Prometheus, as far as a linter asks it; each question may fail with an error of ours."""

    def ask(self, query: str) -> Reply:
        """Evaluate an instant query, every one at the same moment: answers of two would contradict each other."""

    def names(self) -> frozenset[str]:
        """Return every series name it has ever stored."""

    def declared(self) -> frozenset[str]:
        """Return the families that some target declares, whether or not it has a sample."""


@dataclass(frozen=True, slots=True)
class _Why:
    """Why a selector finds nothing."""

    severity: Severity
    rule: str
    what: str
    fix: str = ""


@dataclass(slots=True)
class Live:
    """One Prometheus and what was asked of it so far: the same question is asked once."""

    prometheus: Asks
    known: Known
    since: str = "1h"
    """How far back a series may have had its last sample and still count as there."""
    _names: frozenset[str] = frozenset()
    _declared: frozenset[str] = frozenset()
    _replies: dict[str, Reply] = field(default_factory=dict)
    _tracing: set[str] = field(default_factory=set)
    """Recorded series that are being explained, so that one that is made of itself comes to an end."""

    def begin(self) -> None:
        """Read the names there are.

        Raises:
            ControlplaneError: when the Prometheus does not answer.
        """
        self._names = self.prometheus.names()
        self._declared = frozenset(name for family in self.prometheus.declared() for name in series_of(family))

    def values(self, board: Artefact) -> Mapping[str, tuple[str, ...]]:
        """Return what a dashboard's variables stand for now; those that depend on others come after them."""
        found = dict(values_told(board))
        for variable in board.variables.values():
            if variable.kind == "query" and (asked := self._resolve(variable, found)):
                found[variable.name] = asked
        return found

    def _resolve(self, variable: Variable, so_far: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        asked = label_values(variable.query)
        if asked is None:
            return ()
        of, label = asked
        reply = self._ask(f"group by ({label}) (last_over_time({fill(of, so_far)}[{self.since}]))") if of else Reply()
        return tuple(sorted(value for series in reply.series if (value := series.get(label))))

    def check(self, query: Query, page: Artefact) -> tuple[Finding, ...]:
        """Return what is wrong with a query, as far as its Prometheus can tell."""
        text = fill(query.text, self.values(page)) if page.kind is Kind.DASHBOARD else query.text
        reply = self._ask(text)
        if reply.refused:
            return (_finding(query, _Why(Severity.ERROR, "refused", f"Prometheus refuses it: {reply.refused}")),)
        try:
            node = parse(text)
        except NotPromqlError as error:
            what = f"Prometheus takes it, and it could not be taken apart here: {error}"
            return (_finding(query, _Why(Severity.NOTE, "not-taken-apart", what)),)
        found = list(self._lacking(node))
        if not found and is_vector(node) and not is_range(node):
            found += self._empty(node)
        return tuple(dict.fromkeys(_finding(query, why) for why in found))

    # -- selectors -----------------------------------------------------------------------------------------------------

    def _lacking(self, node: Node) -> tuple[_Why, ...]:
        """Return why parts of an expression find nothing; a side of `or` whose other side answers is excused."""
        if isinstance(node, Selector):
            why = self._why_nothing(node)
            return (why,) if why else ()
        found = [self._lacking(part) for part in parts(node)]
        if isinstance(node, Binary) and node.operator == "or" and not all(found):
            return tuple(_excuse(why) for side in found for why in side)
        return tuple(why for side in found for why in side)

    def _why_nothing(self, selector: Selector) -> _Why | None:
        if self._there(selector):
            return None
        name = selector.name
        if name and name not in self._names:
            return self._unknown(name)
        alone = [m for m in selector.matchers if self._there(selector.without(m))]
        if len(alone) == 1:
            return self._killed_by(selector, alone[0])
        if alone:
            return self._never_together(selector, alone)
        never = [m for m in selector.matchers if name and not self._there(Selector(name, (m,)))]
        if never and self._there(Selector(name, ())):
            return self._killed_by(Selector(name, (never[0],)), never[0])
        if never:
            what = f"`{name}` has had no sample for {self.since}"
            return _Why(Severity.WARN, "no-sample", what, "is what exposes it still scraped?")
        return self._never_together(selector, list(selector.matchers))

    def _never_together(self, selector: Selector, these: list[Matcher]) -> _Why:
        """Say which matchers find series each, and none together."""
        said = " and ".join(f"`{matcher.text}`" for matcher in these)
        what = f"no series of `{selector}` has {said} at once, though each matcher finds some"
        if all(self.known.can_be(selector, matcher) for matcher in these):
            return _Why(Severity.NOTE, "quiet-value", f"{what}; it has not happened yet, or nothing here tells it")
        return _Why(Severity.ERROR, "no-such-combination", what)

    def _unknown(self, name: str) -> _Why:
        """Say why a series has never been seen."""
        if name in self._declared or name in self.known.own:
            what = f"`{name}` has no sample yet: a target declares it, and nothing has happened yet that it would tell"
            return _Why(Severity.NOTE, "quiet-series", what)
        if name in self.known.records:
            return self._never_recorded(name)
        for prefix, comes_from in BY_DESIGN:
            if name.startswith(prefix) and not any(seen.startswith(prefix) for seen in self._names):
                return _Why(Severity.NOTE, "by-design", f"`{name}` comes from {comes_from}; none is scraped here")
        if name in ENGINE_SERIES:
            what = f"`{name}` is a series of an engine, and none that is scraped here exposes it"
            return _Why(Severity.WARN, "engine-series", what, "controlplane check --live says what each page tells")
        near = get_close_matches(name, self._names, 1, 0.8)
        fix = f"did it mean {near[0]}?" if near else "is what exposes it scraped?"
        return _Why(Severity.ERROR, "unknown-series", f"`{name}` has never been seen", fix)

    def _never_recorded(self, name: str) -> _Why:
        """Say why a series that our rules record is not there: for want of what it is made of, or of the rule."""
        lacking = () if name in self._tracing else self._trace(name)
        if lacking and all(why.severity is Severity.NOTE for why in lacking):
            return _Why(
                Severity.NOTE, lacking[0].rule, f"`{name}` is recorded from what is not there: {lacking[0].what}"
            )
        what = f"`{name}` is recorded by our rules, and has never been seen"
        return _Why(Severity.ERROR, "unknown-series", what, "are the rules loaded as `rule_files`?")

    def _trace(self, name: str) -> tuple[_Why, ...]:
        self._tracing.add(name)
        try:
            return self._lacking(parse(self.known.records[name]))
        except NotPromqlError:
            return ()
        finally:
            self._tracing.discard(name)

    def _killed_by(self, selector: Selector, matcher: Matcher) -> _Why:
        """Say which matcher finds nothing, and what it could have found."""
        rest = selector.without(matcher)
        by = self._ask(f"group by ({matcher.label}) (last_over_time({rest}[{self.since}]))")
        there = sorted({series.get(matcher.label, "") for series in by.series} - {""})
        if not there:
            what = (
                f"`{matcher.text}` of `{selector}` finds nothing: no series of `{rest}` has the label `{matcher.label}`"
            )
        else:
            more = f", and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
            what = f"`{matcher.text}` of `{selector}` finds nothing: there are {', '.join(there[:SHOWN])}{more}"
        if there and self.known.can_be(selector, matcher):
            return _Why(Severity.NOTE, "quiet-value", what + "; it has not happened yet, or nothing here tells it")
        near = [close for value in matcher.wants for close in get_close_matches(value, there, 1)]
        return _Why(Severity.ERROR, "no-such-value", what, f"did it mean {near[0]}?" if near else "")

    # -- the whole -----------------------------------------------------------------------------------------------------

    def _empty(self, node: Node) -> tuple[_Why, ...]:
        """Return why an expression gives nothing though every selector in it finds series."""
        if self._gives(node):
            return ()
        for join in joins(node):
            if self._gives(join.left) and self._gives(join.right) and not self._gives(join):
                return (self._mismatch(join),)
        quiet = next((s for s in selectors(node) if not self._ask(f"count({s})").series), None)
        if quiet:
            what = f"it gives nothing now: `{quiet}` has no sample at this moment, and had one within {self.since}"
            return (_Why(Severity.NOTE, "quiet-now", what),)
        what = "it gives nothing, though every series in it is there"
        return (_Why(Severity.WARN, "empty", what, "is its window shorter than two scrapes, or its data too young?"),)

    def _gives(self, node: Node) -> bool:
        return not is_vector(node) or bool(self._ask(f"count({relaxed(node)})").series)

    def _mismatch(self, join: Binary) -> _Why:
        """Say in which labels two sides of a join differ."""
        left, right = self._ask(relaxed(join.left)).series, self._ask(relaxed(join.right)).series
        on = _on(join.matching)
        labels = on if on is not None else sorted({k for side in (left, right) for s in side for k in s} - {"__name__"})
        differ = []
        for label in labels:
            ours, theirs = ({s.get(label, "") for s in side} for side in (left, right))
            if not ours & theirs:
                differ.append(f"{label} ({_some(ours)} against {_some(theirs)})")
        told = "; ".join(differ[:SHOWN]) or "no pair agrees in all of them at once"
        what = f"the sides of `{join.operator} {join.matching}".rstrip() + f"` have no partners: {told}"
        fix = "" if on is not None else "name the labels they share: `on (...)`"
        return _Why(Severity.ERROR, "join-mismatch", what, fix)

    # -- asking --------------------------------------------------------------------------------------------------------

    def _there(self, selector: Selector) -> bool:
        if not selector.name and not selector.matchers:
            return False
        now = self._ask(f"count({selector})")
        return bool(now.series or self._ask(f"count(last_over_time({selector}[{self.since}]))").series)

    def _ask(self, query: str) -> Reply:
        if query not in self._replies:
            self._replies[query] = self.prometheus.ask(query)
        return self._replies[query]


def _excuse(why: _Why) -> _Why:
    if why.rule in ("engine-series", "no-sample"):
        return _Why(Severity.NOTE, why.rule, f"{why.what}; the other side of `or` answers")
    return why


def _on(matching: str) -> list[str] | None:
    """Return the labels of `on (...)`; None where the sides must agree in all."""
    if not matching.startswith("on "):
        return None
    inside = matching.partition("(")[2].partition(")")[0]
    return [label.strip() for label in inside.split(",") if label.strip()]


def _some(values: set[str]) -> str:
    shown = sorted(value or "absent" for value in values)
    return "/".join(shown[:3]) + ("/..." if len(shown) > 3 else "") if shown else "absent"


def _finding(query: Query, why: _Why) -> Finding:
    return Finding(why.severity, why.rule, query.path, query.where, why.what, why.fix)
