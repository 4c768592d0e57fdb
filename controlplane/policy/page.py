"""A YAML page as plain data that remembers on which line each key stands, and collects everything wrong with it.

Pure: text in, data out. `policy/load.py` gives the data its types.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from controlplane.errors import Problem

MAX_DEPTH = 32
"""A page nested deeper than this is refused (one that contains itself has no end)."""

MAX_VALUES = 20_000
"""Nobody writes more by hand; aliases that multiply each other do."""

REPLACED_WHOLE = ("when", "guards")
"""Keys whose mappings are one thing: a page's own replaces the default instead of being laid over it."""

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
        page.data = _plain(root, (), page) if root is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
        why = str(getattr(error, "problem", None) or getattr(error, "reason", error))
        page.problems.append(Problem(f"{file}:{line}", "not valid YAML", why, "mend the YAML on this line"))
    except RecursionError:
        page.problems.append(Problem(f"{file}:1", "nested too deeply", "no setting is so deep", "flatten the page"))
    return page


def _plain(node: yaml.Node, path: Path, page: Page) -> Any:
    """Turn a YAML node into plain data, noting lines, repeated keys and values that cannot be built."""
    page.lines.setdefault(path, node.start_mark.line + 1)
    if len(page.lines) > MAX_VALUES:
        page.problems = [Problem(f"{page.file}:1", "too large", f"more than {MAX_VALUES} values", "shorten the page")]
        return None
    if len(path) > MAX_DEPTH:
        page.wrong(path, "nested too deeply", f"no setting is {MAX_DEPTH} levels deep", "flatten the page")
        return None
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
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        why = str(getattr(error, "problem", None) or error)
        page.wrong(path, f"`{spell(path)}` cannot be read", why, "write plain text, a number, or quote it")
        return None
    finally:
        loader.dispose()


def overlay(below: Any, above: Any) -> Any:
    """Lay one page's data over another's: mappings key by key, everything else replaced."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    merged = dict(below)
    for key, value in above.items():
        merge = key in below and key not in REPLACED_WHOLE
        merged[key] = overlay(below[key], value) if merge else value
    return merged
