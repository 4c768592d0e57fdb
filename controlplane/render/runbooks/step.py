"""One thing to do by hand: exact commands, its check and its undo; a value that pages are made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do by hand."""

    title: str
    why: str
    do: str
    expect: str
    check: str
    undo: str = ""
    no_undo: str = ""
    """Why there is nothing to undo."""
