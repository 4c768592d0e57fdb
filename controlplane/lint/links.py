"""Where links lead: files, anchors, dashboards and addresses; pure.

What only a server can tell (does this address answer?) is left to the caller: `addresses` names them.
"""

import re
from collections.abc import Container, Mapping, Sequence
from difflib import get_close_matches
from posixpath import dirname, normpath
from urllib.parse import parse_qs, unquote, urlsplit

from controlplane.lint.artefact import Artefact, Kind, Link
from controlplane.lint.finding import Check, Finding, Severity

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
_ANCHOR = re.compile(r"<a\s[^>]*\b(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)
_FILLED = re.compile(r"\{\{.*?\}\}|\$\{[^}]*\}|\$\w+|\[\[\w+\]\]")
"""What Prometheus or Grafana fill in."""


def anchors(text: str) -> frozenset[str]:
    """Return the anchors of a Markdown page, as GitHub and the console name them: by heading, and explicit ones."""
    found: dict[str, int] = {}
    for heading in _HEADING.finditer(_without_blocks(text)):
        name = heading_anchor(heading[1])
        seen = found.get(name)
        found[name] = 0 if seen is None else seen + 1
    names = {name if n == 0 else f"{name}-{n}" for name, last in found.items() for n in range(last + 1)}
    return frozenset(names | set(_ANCHOR.findall(text)))


def heading_anchor(heading: str) -> str:
    """Return a heading's anchor: lower case, words joined by `-`, nothing but letters, digits, `_` and `-`."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    plain = re.sub(r"[`*~\\]", "", plain).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def addresses(artefacts: Sequence[Artefact]) -> tuple[str, ...]:
    """Return every address that a server must answer, once, in order; those that are filled in later are left out."""
    every = (link.target.partition("#")[0] for a in artefacts for link in a.links)
    return tuple(dict.fromkeys(t for t in every if _is_address(t) and not _FILLED.search(urlsplit(t).netloc + t)))


def check_links(
    artefacts: Sequence[Artefact], files: Container[str], answers: Mapping[str, str] | None
) -> tuple[Check, ...]:
    """Check where every link of the files leads.

    Args:
        artefacts: the files, read; paths relative to the directory they are published in.
        files: every path there is, for links to files that are not read here.
        answers: why an address does not answer, by address; empty text where it does. None when nobody was asked.
    """
    pages = {artefact.path: artefact for artefact in artefacts}
    boards = {uid: artefact for artefact in artefacts for uid in artefact.uids}
    return tuple(
        Check(link.path, link.where, "link", _judge(link, pages, files, boards, answers))
        for artefact in artefacts
        for link in artefact.links
    )


def _judge(
    link: Link, pages: Mapping[str, Artefact], files: Container[str], boards: Mapping[str, Artefact],
    answers: Mapping[str, str] | None,
) -> tuple[Finding, ...]:  # fmt: skip
    """Say what is wrong with one link."""
    target = link.target
    if _is_address(target):
        address, _, anchor = target.partition("#")
        why = (answers or {}).get(address, "")
        if why:
            return (_dead(link, why, "mend the address, or start what should answer there"),)
        return _on_board(link, address, boards) if "/d/" in address and anchor is not None else ()
    if target.startswith("/"):
        return _on_board(link, target, boards)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", target):
        return ()
    path, _, anchor = target.partition("#")
    if _FILLED.search(path):
        return ()
    page = _page(link.path, unquote(path), pages, files)
    if page is None:
        near = get_close_matches(path, pages, 1)
        return (
            _dead(link, "there is no such file", f"did it mean {near[0]}?" if near else "render, or mend the link"),
        )
    if anchor and not _FILLED.search(anchor) and page in pages and pages[page].kind is Kind.RUNBOOK:
        there = anchors(pages[page].text)
        if unquote(anchor) not in there:
            near = get_close_matches(anchor, there, 1)
            return (_dead(link, f"{page} has no heading `{anchor}`", f"did it mean #{near[0]}?" if near else ""),)
    return ()


def _page(at: str, path: str, pages: Mapping[str, Artefact], files: Container[str]) -> str | None:
    """Find a linked file: beside the page, or from the directory that everything is published in."""
    if not path:
        return at
    for tried in (normpath(f"{dirname(at)}/{path}"), normpath(path)):
        if tried in pages or tried in files:
            return tried
    return None


def _on_board(link: Link, target: str, boards: Mapping[str, Artefact]) -> tuple[Finding, ...]:
    """Check a link to a dashboard: its uid, and the variables it sets."""
    address = urlsplit(target)
    found = re.search(r"/d/([^/?#]+)", address.path)
    if found is None or _FILLED.search(found[1]):
        return ()
    board = boards.get(unquote(found[1]))
    if board is None:
        if _is_address(target):
            return ()
        near = get_close_matches(found[1], boards, 1)
        return (_dead(link, f"no dashboard has the uid `{found[1]}`", f"did it mean {near[0]}?" if near else ""),)
    asked = {
        key.removeprefix("var-") for key in parse_qs(address.query, keep_blank_values=True) if key.startswith("var-")
    }
    unknown = sorted(asked - set(board.variables))
    if unknown:
        what = f"`{link.target}` sets the variable `{unknown[0]}`, which {board.path} does not have"
        return (Finding(Severity.WARN, "link-variable", link.path, link.where, what),)
    return ()


def _dead(link: Link, why: str, fix: str) -> Finding:
    return Finding(Severity.ERROR, "dead-link", link.path, link.where, f"`{link.target}` leads nowhere: {why}", fix)


def _is_address(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def _without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL)
