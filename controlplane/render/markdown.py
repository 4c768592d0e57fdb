"""Markdown from values: escaping, tables, and the notes that people keep on a rendered page; pure.

Called by `runbooks`, and by the flow that publishes (`keep_notes`). Values reach a page through the functions here,
so that HTML, Markdown, template syntax and control characters in them come out as plain text.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.render.wording import inert

NOTES_BEGIN = "<!-- notes:begin -->"
NOTES_END = "<!-- notes:end -->"

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!])")


def text(value: object) -> str:
    """Return a value as plain text of a paragraph or a table cell."""
    return _plain(inert(value))


def code(value: object) -> str:
    """Return a value as a code span; its fence is longer than any run of backticks in it."""
    line = inert(value)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", r"\|") if line else "-"


def _plain(inert_text: str) -> str:
    return _SPECIAL.sub(r"\\\1", inert_text.replace("&", "&amp;"))


def prose(value: object) -> str:
    """Return a sentence of ours with its code spans; what a name brought into it stays plain text or code."""
    parts = inert(value).split("`")
    if len(parts) % 2 == 0:  # A name brought a backtick: which of them are ours cannot be told.
        return text(value)
    return "".join((code(part) if part else "") if i % 2 else _plain(part) for i, part in enumerate(parts))


def shell(value: object) -> str:
    """Return a value as one word of a shell command."""
    return shlex.quote(inert(value))


def comment(value: object) -> str:
    """Return a value as an HTML comment."""
    return f"<!-- {inert(value, 1000).replace('--', '- -').replace('<', '&lt;').replace('>', '&gt;')} -->"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells that are Markdown already."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    right: frozenset[int] = frozenset()
    """Columns of numbers."""


def table(value: Table) -> str:
    """Write a table whose columns stand under each other in the source, too."""
    widths = [max(3, *(len(row[i]) for row in (value.head, *value.rows))) for i in range(len(value.head))]

    def line(cells: Sequence[str]) -> str:
        placed = (
            c.rjust(w) if i in value.right else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(placed)} |"

    rule = ("-" * (w - 1) + ":" if i in value.right else "-" * w for i, w in enumerate(widths))
    return "\n".join((line(value.head), line(tuple(rule)), *(line(row) for row in value.rows)))


def keep_notes(old_text: str, new_text: str) -> str:
    """Carry what people wrote on a page over to its next rendering.

    Args:
        old_text: the page as it stands; without markers nothing is carried over.
        new_text: the page as it was just rendered.

    Returns:
        The new page, with the old one's text between the notes markers.
    """
    old, new = _split(old_text), _split(new_text)
    return f"{new[0]}{old[1]}{new[2]}" if old and new else new_text


def _split(page: str) -> tuple[str, str, str] | None:
    """Cut a page around its notes: the first begin and the last end, so that notes may quote the markers."""
    begin, end = page.find(NOTES_BEGIN), page.rfind(NOTES_END)
    if begin < 0 or end < begin:
        return None
    begin += len(NOTES_BEGIN)
    return page[:begin], page[begin:end], page[end:]
