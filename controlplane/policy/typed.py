"""Plain data from a page -> typed values: text, numbers, durations, ratios, lists, mappings, dataclasses.

Whatever cannot be read becomes a problem on the page and `BAD` in its place, so that everything wrong is found at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from controlplane.policy import quantity
from controlplane.policy.page import Page, Path, spell

T = TypeVar("T")

_RENAMED = {"dwell": "for"}
"""Fields whose key on the page is a Python keyword."""


class Bad:
    """Stands where a value could not be read; its problem is already noted."""


BAD = Bad()


def one_of(page: Page, kind: type[T], node: Any, path: Path) -> T | Bad:
    """Read a mapping of exactly one key, such as `http: {...}`."""
    if is_mapping(page, node, path) and len(node) != 1:
        page.wrong(path, f"`{spell(path)}` needs exactly one kind", "one entry is one probe", "give each its own dash")
        return BAD
    value: T | Bad = read(page, kind, node, path)
    return value


def read(page: Page, kind: Any, node: Any, path: Path) -> Any:
    """Read one value of a type; a problem gives `BAD`."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(k for k in get_args(kind) if k is not NoneType)
    if get_origin(kind) is tuple:
        return read_list(page, node, path, partial(read, page, get_args(kind)[0]))
    if get_origin(kind) is not None and issubclass(get_origin(kind), Mapping):
        return read_mapping(page, node, path, partial(read, page, get_args(kind)[1]))
    if is_dataclass(kind):
        return _dataclass(page, kind, node, path)
    return _scalar(page, kind, node, path)


_EXPECTED: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
}


def _scalar(page: Page, kind: Any, node: Any, path: Path) -> Any:
    try:
        if kind is timedelta:
            return quantity.duration(node)
        if kind is float:
            return quantity.ratio(node)
        if issubclass(kind, StrEnum):
            return kind(node)
    except ValueError as error:
        expected = f"one of: {', '.join(kind)}" if issubclass(kind, StrEnum) else str(error)
        page.wrong(path, f"`{spell(path)}: {node}` is not usable", "it is of another kind", f"write {expected}")
        return BAD
    if isinstance(node, kind) and isinstance(node, bool) == (kind is bool) and node != "":
        return node
    found = "nothing" if node in (None, "") else f"`{node}`"
    page.wrong(path, f"`{spell(path)}` is {found}", "it is of another kind", f"write {_EXPECTED[kind]}")
    return BAD


def read_ratio(page: Page, node: Any, path: Path) -> float | Bad:
    """Read a share from 0 to 1, such as `50%`."""
    value: float | Bad = _scalar(page, float, node, path)
    return value


def _dataclass(page: Page, kind: Any, node: Any, path: Path) -> Any:
    if not is_mapping(page, node, path):
        return BAD
    hints = get_type_hints(kind)
    keys = {_RENAMED.get(f.name, f.name): f for f in fields(kind)}
    page.check_keys(node, path, tuple(keys))
    values: dict[str, Any] = {}
    for key, spec in keys.items():
        if key in node:
            values[spec.name] = read(page, hints[spec.name], node[key], (*path, key))
        elif spec.default is MISSING and spec.default_factory is MISSING:
            page.wrong(
                path, f"`{spell((*path, key))}` is missing", f"`{spell(path)}` is not complete without it",
                f"add `{key}:`",
            )  # fmt: skip
            values[spec.name] = BAD
        elif isinstance(node, dict) and (default := _spell_default(spec.default)) is not None:
            node[key] = default  # The resolved page shows what is in force.
    return BAD if any(v is BAD for v in values.values()) else kind(**values)


def _spell_default(default: Any) -> Any:
    """Write a default as a person would; None for one that means that there is nothing."""
    if isinstance(default, timedelta):
        return quantity.spell_duration(default)
    if isinstance(default, StrEnum):
        return default.value
    if isinstance(default, float):
        return f"{default * 100:g}%"  # Every fraction on a page is a share of something.
    if isinstance(default, StrEnum):
        return default.value
    return default if isinstance(default, str | int) and default != "" else None


def is_mapping(page: Page, node: Any, path: Path) -> bool:
    """Tell whether a value holds keys; note a problem when it does not."""
    if isinstance(node, Mapping):
        return True
    page.wrong(path, f"`{spell(path)}` is `{node}`", "it must hold keys", f"write `{spell(path)}:` with keys under it")
    return False


def read_list(page: Page, node: Any, path: Path, read: Callable[[Any, Path], Any]) -> tuple[Any, ...]:
    """Read a list item by item, leaving out those that could not be read."""
    if not isinstance(node, list):
        page.wrong(path, f"`{spell(path)}` is `{node}`", "it must be a list", "write `[ ... ]`")
        return ()
    values = [read(item, (*path, i)) for i, item in enumerate(node)]
    return tuple(v for v in values if v is not BAD)


def read_mapping(page: Page, node: Any, path: Path, read: Callable[[Any, Path], Any]) -> dict[str, Any]:
    """Read a mapping value by value, leaving out those that could not be read."""
    if not is_mapping(page, node, path):
        return {}
    values = {key: read(item, (*path, key)) for key, item in node.items()}
    return {key: value for key, value in values.items() if value is not BAD}


def good(value: T | Bad) -> T | None:
    """Return a value that was read, or None for one that was not."""
    return None if isinstance(value, Bad) else value
