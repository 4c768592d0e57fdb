"""Plain values as YAML text, as people write it; pure.

PyYAML needs a tenth of a second for the pages of one service; this needs a hundredth, and a test reads back what it
writes with PyYAML. Called by everything here that writes a page.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

Value = str | int | float | bool | Mapping[str, "Value"] | Sequence["Value"]
"""What a page is made of; every key is a plain word."""

_PLAIN = re.compile(r"(?:[A-Za-z/_](?:[A-Za-z0-9/_.+-]| (?=[A-Za-z0-9/]))*|(?:\d+(?:ms|s|m|h|d))+)")
"""Texts that are themselves without quotes: nothing that YAML reads as a number, a date or a structure."""
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"))
"""What readers of YAML 1.1 take for something else."""
_ODD = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""What cannot be seen where it stands, or YAML does not take as it is; line feeds are told apart."""
_SCALAR = (str, int, float)
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


def dump(value: Value, indent: int = 0) -> str:
    """Write a mapping or a sequence, each line indented by so many spaces and ended."""
    if isinstance(value, _SCALAR):
        return f"{' ' * indent}{scalar(value)}\n"
    if isinstance(value, Mapping):
        return "".join(_entry(f"{' ' * indent}{key(name)}:", part, indent) for name, part in value.items())
    return "".join(_item(part, indent) for part in value)


def _entry(head: str, value: Value, indent: int) -> str:
    if isinstance(value, str) and "\n" in value and _blockable(value):
        lines = "".join(f"{' ' * (indent + 2)}{line}\n" for line in value.split("\n"))
        return f"{head} |-\n{lines}"
    if isinstance(value, _SCALAR):
        return f"{head} {scalar(value)}\n"
    if not value:
        return f"{head} {'{}' if isinstance(value, Mapping) else '[]'}\n"
    return f"{head}\n{dump(value, indent + 2)}"


def _item(value: Value, indent: int) -> str:
    if isinstance(value, _SCALAR) or not value:
        return _entry(f"{' ' * indent}-", value, indent)
    body = dump(value, indent + 2)
    return f"{' ' * indent}- {body[indent + 2 :]}"


@lru_cache(maxsize=1024)
def key(name: str) -> str:
    """Write the name of an entry."""
    return name if _KEY.fullmatch(name) and name.lower() not in _WORDS else scalar(name)


@lru_cache(maxsize=4096, typed=True)
def scalar(value: str | int | float) -> str:  # noqa: PYI041 - the two are written differently
    """Write one value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.12g}"
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if "'" not in value and not _ODD.search(value) and "\n" not in value:
        return f"'{value}'"
    return f'"{_escaped(value)}"'


def _blockable(value: str) -> bool:
    """Tell whether a text of several lines may stand as a block: nothing is hidden, no line begins oddly."""
    lines = value.split("\n")
    return not _ODD.search(value) and not lines[0].startswith(" ") and all(lines)


def _escaped(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return _ODD.sub(lambda found: f"\\U{ord(found[0]):08X}", escaped)
