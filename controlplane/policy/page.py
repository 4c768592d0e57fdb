"""A YAML page as plain data that remembers on which line each key stands, and collects everything wrong with it.

Pure: text in, data out. `policy/load.py` gives the data its types.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from controlplane.errors import Problem

Path = tuple[str | int, ...]
"""Where a value stands on the page: keys and list positions from the top."""


@dataclass(slots=True)
class Page:
    """One page while it is being read."""

    file: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: Path) -> str:
        """Return `file:line` of a value, or of the closest thing around it that is on the page."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"

    def wrong(self, path: Path, what: str, why: str, fix: str) -> None:
        """Add one problem."""
        self.problems.append(Problem(self.where(path), what, why, fix))

    def check_keys(self, node: Mapping[str, Any], path: Path, known: Collection[str]) -> None:
        """Refuse unknown keys, with the one that was probably meant."""
        for key in node:
            if key not in known:
                close = difflib.get_close_matches(str(key), list(known), n=1)
                fix = f"did you mean `{close[0]}`?" if close else f"known keys here: {', '.join(sorted(known))}"
                self.wrong((*path, key), f"unknown key `{spell((*path, key))}`", "the page has no such setting", fix)


def spell(path: Path) -> str:
    """Write a path as people do: `fleet.pools.primary` or `probes[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def parse(file: str, text: str) -> Page:
    """Read a YAML page; syntax errors and repeated keys become problems, not exceptions."""
    page = Page(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = (error.problem_mark.line + 1) if error.problem_mark else 1
        page.problems.append(
            Problem(f"{file}:{line}", "not valid YAML", str(error.problem or error), "mend the YAML on this line")
        )
        return page
    page.data = _plain(root, (), page) if root is not None else {}
    return page


def _plain(node: yaml.Node, path: Path, page: Page) -> Any:
    """Turn a YAML node into plain data, noting lines and repeated keys."""
    page.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            if key in found:
                line = f"{page.file}:{key_node.start_mark.line + 1}"
                first = page.where(here)
                page.problems.append(
                    Problem(line, f"`{spell(here)}` stands twice", f"the first one is at {first}", "keep one of them")
                )
                continue
            page.lines[here] = key_node.start_mark.line + 1
            found[key] = _plain(value_node, here, page)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), page) for i, item in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    finally:
        loader.dispose()


def overlay(below: Any, above: Any) -> Any:
    """Lay one page's data over another's: mappings key by key, everything else replaced."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {k: overlay(below[k], above[k]) if k in below and k in above else above.get(k, below.get(k))
                for k in (*below, *(k for k in above if k not in below))}  # fmt: skip
    return above
