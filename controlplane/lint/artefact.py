"""Rendered files as a linter sees them: queries, links, anchors, proofs; known by their content, not their names; pure.

Rules are Prometheus's own files and `PrometheusRule` objects, dashboards Grafana's JSON, bare or inside a `ConfigMap`;
everything in Markdown is a runbook. What is none of these (unit tests, an Alertmanager's configuration) asks nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import yaml

from controlplane.lint.promql import NotPromqlError, parse


class Kind(StrEnum):
    """What a file is."""

    RULES = "rules"
    DASHBOARD = "dashboard"
    RUNBOOK = "runbook"
    OTHER = "other"
    BROKEN = "broken"
    """It cannot be read as what its ending says."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and where it stands."""

    path: str
    where: str
    text: str
    role: str
    """`alert`, `record`, `panel`, `mark`, `variable` or `runbook`."""


@dataclass(frozen=True, slots=True)
class Link:
    """One link and where it stands."""

    path: str
    where: str
    target: str


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable of a dashboard."""

    name: str
    kind: str
    query: str
    values: tuple[str, ...]
    """What it stands for without asking anybody; empty where only Prometheus knows."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """One file, read."""

    path: str
    kind: Kind
    text: str
    queries: tuple[Query, ...] = ()
    links: tuple[Link, ...] = ()
    records: tuple[str, ...] = ()
    """Names of series that its rules record."""
    uids: frozenset[str] = frozenset()
    """Of its dashboards (a `ConfigMap` may hold several), by which links find them."""
    variables: Mapping[str, Variable] = field(default_factory=dict)
    problem: str = ""
    """Why a broken one cannot be read."""


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^ *```[ \t]*$", re.MULTILINE | re.DOTALL
)
_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(
    r"(?<!\\)\[(?:[^\[\]\\]|\\.)*\]\(\s*<?([^()\s<>]+(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)"
)
_AUTO = re.compile(r"<(https?://[^\s<>]+)>")
_LABEL_VALUES = re.compile(r"^\s*label_values\(\s*(?:(?P<of>.+),)?\s*(?P<label>\w+)\s*\)\s*$", re.DOTALL)
_QUERY_RESULT = re.compile(r"^\s*query_result\((?P<of>.+)\)\s*$", re.DOTALL)


def read(path: str, text: str) -> Artefact:
    """Read one file; whatever it holds, this does not raise."""
    try:
        if path.endswith(".md"):
            return _runbook(path, text)
        if path.endswith(".json"):
            return _documents(path, text, [json.loads(text)])
        if path.endswith((".yml", ".yaml")):
            return _documents(path, text, list(yaml.load_all(text, Loader=_LOADER)))
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        return Artefact(path, Kind.BROKEN, text, problem=" ".join(str(error).split())[:200])
    return Artefact(path, Kind.OTHER, text)


def label_values(query: str) -> tuple[str, str] | None:
    """Return the selector (perhaps empty) and the label of a variable's `label_values(...)`; None for another query."""
    found = _LABEL_VALUES.match(query)
    return ((found["of"] or "").strip(), found["label"]) if found else None


def prose(text: str) -> str:
    """Return a Markdown page without its code, in blocks and in lines; lines keep their numbers."""
    bare = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    return _SPAN.sub(lambda found: "\n" * found[0].count("\n"), bare)


def _documents(path: str, text: str, documents: list[Any]) -> Artefact:
    queries: list[Query] = []
    links: list[Link] = []
    records: list[str] = []
    boards: list[Mapping[str, Any]] = []
    is_rules = False
    for document in documents:
        for found in _inner(document):
            if isinstance(found.get("groups"), list):
                is_rules = True
                _rules(path, found["groups"], queries, links, records)
            elif isinstance(found.get("panels"), list):
                boards.append(found)
                _dashboard(path, found, queries, links)
    if boards:
        uids = frozenset(str(board["uid"]) for board in boards if board.get("uid"))
        variables = {v.name: v for board in boards for v in _variables(board)}
        return Artefact(path, Kind.DASHBOARD, text, tuple(queries), tuple(links), uids=uids, variables=variables)
    kind = Kind.RULES if is_rules else Kind.OTHER
    return Artefact(path, kind, text, tuple(queries), tuple(links), tuple(records))


def _inner(document: Any) -> Iterator[Mapping[str, Any]]:
    """Give the documents that a Kubernetes object or a request of the Grafana API wraps, or the document itself."""
    if not isinstance(document, Mapping):
        return
    if isinstance(document.get("spec"), Mapping):
        yield from _inner(document["spec"])
    elif isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _inner(item)
    elif document.get("kind") == "ConfigMap" and isinstance(document.get("data"), Mapping):
        for name, text in document["data"].items():
            yield from _inner(json.loads(text) if str(name).endswith(".json") else yaml.load(text, Loader=_LOADER))  # noqa: S506
    elif isinstance(document.get("dashboard"), Mapping):
        yield from _inner(document["dashboard"])
    else:
        yield document


def _rules(path: str, groups: list[Any], queries: list[Query], links: list[Link], records: list[str]) -> None:
    for group in _mappings(groups):
        for rule in _mappings(group.get("rules")):
            name = str(rule.get("alert") or rule.get("record") or "?")
            role = "alert" if "alert" in rule else "record"
            queries.append(Query(path, name, str(rule.get("expr", "")), role))
            if role == "record":
                records.append(name)
            annotations = rule.get("annotations")
            for key, target in (annotations if isinstance(annotations, Mapping) else {}).items():
                if str(key).endswith("_url"):
                    links.append(Link(path, f"{name} {key}", str(target)))


def _dashboard(path: str, board: Mapping[str, Any], queries: list[Query], links: list[Link]) -> None:
    links += [Link(path, "links of the dashboard", str(link.get("url"))) for link in _linked(board.get("links"))]
    for mark in _mappings(_at(board, "annotations", "list")):
        text = mark.get("expr") or _at(mark, "target", "expr")
        if text:
            queries.append(Query(path, f"mark {mark.get('name', '?')}", str(text), "mark"))
    for variable in _variables(board):
        asked = label_values(variable.query)
        result = _QUERY_RESULT.match(variable.query)
        if (asked and asked[0]) or result:
            of = asked[0] if asked else str(result and result["of"])
            queries.append(Query(path, f"variable {variable.name}", of, "variable"))
    for panel in _panels(board):
        name = f"panel {panel.get('title') or panel.get('id', '?')}"
        for target in _mappings(panel.get("targets")):
            if target.get("expr"):
                queries.append(Query(path, f"{name} {target.get('refId', '')}".strip(), str(target["expr"]), "panel"))
        data = _at(panel, "fieldConfig", "defaults", "links")
        links += [Link(path, name, str(link.get("url"))) for link in (*_linked(panel.get("links")), *_linked(data))]
        written = _at(panel, "options", "content")
        if panel.get("type") == "text" and isinstance(written, str):
            links += [Link(path, name, target) for _, target in _targets(written)]


def _panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for panel in _mappings(board.get("panels")):
        yield panel
        yield from _panels(panel)


def _variables(board: Mapping[str, Any]) -> Iterator[Variable]:
    for found in _mappings(_at(board, "templating", "list")):
        asked = found.get("query")
        query = str(asked.get("query", "") if isinstance(asked, Mapping) else asked or "")
        kind = str(found.get("type", ""))
        values = _told(kind, query, _at(found, "current", "value"))
        yield Variable(str(found.get("name", "")), kind, query, values)


def _told(kind: str, query: str, current: Any) -> tuple[str, ...]:
    """Return a variable's values as far as the file tells them."""
    if kind in ("custom", "interval"):
        words = [word.strip().rpartition(" : ")[2] for word in re.split(r"(?<!\\),", query)]
        return tuple(word for word in words if word)
    if kind in ("constant", "textbox"):
        return (query,) if query else ()
    said = current if isinstance(current, list) else [current]
    return tuple(str(value) for value in said if value and not str(value).startswith("$__"))


def _runbook(path: str, text: str) -> Artefact:
    queries = []
    for block in _FENCE.finditer(text):
        if block["language"] == "promql":
            line = text.count("\n", 0, block.start("body")) + 1
            queries += [Query(path, f"line {line}", asked, "runbook") for asked in _asked(block["body"])]
    bare = prose(text)
    links = [Link(path, f"line {bare.count(chr(10), 0, at) + 1}", target) for at, target in _targets(bare)]
    return Artefact(path, Kind.RUNBOOK, text, tuple(queries), tuple(links))


def _asked(block: str) -> list[str]:
    """Return the expressions of a block: the whole, or one a paragraph or a line where the whole is none."""
    for cut in (r"\Z", r"\n[ \t]*\n", r"\n"):
        found = [text.strip() for text in re.split(cut, block) if text.strip()]
        if found and all(_is_promql(text) for text in found):
            return found
    return [block.strip()] if block.strip() else []


def _is_promql(text: str) -> bool:
    try:
        parse(text)
    except NotPromqlError:
        return False
    return True


def _targets(text: str) -> Iterator[tuple[int, str]]:
    for pattern in (_LINK, _AUTO):
        for found in pattern.finditer(text):
            yield found.start(), found[1]


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (item for item in (value if isinstance(value, list) else ()) if isinstance(item, Mapping))


def _linked(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from (link for link in _mappings(value) if link.get("url"))


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
