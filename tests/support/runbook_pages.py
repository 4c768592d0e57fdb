"""The pages of the runbooks, taken apart as a person reads them: sections, blocks of commands, steps by hand."""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    section: str
    """The heading of the second level above it."""
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class ByHand:
    """One step by hand."""

    title: str
    do: str
    check: str
    undo: str
    """Empty where the page says why there is none."""


def blocks(page: str, language: str = "") -> Iterator[Block]:
    """Walk the fenced blocks of a page, those inside lists without their indent."""
    section = ""
    inside: list[str] | None = None
    fence = indent = ""
    for line in page.splitlines():
        opened = re.match(r"^( *)```(\w+)$", line)
        if inside is None and opened:
            indent, fence, inside = opened[1], opened[2], []
        elif inside is not None and line == f"{indent}```":
            if language in ("", fence):
                yield Block(section, fence, "\n".join(inside) + "\n")
            inside = None
        elif inside is not None:
            inside.append(line.removeprefix(indent))
        elif line.startswith("## "):
            section = line[3:]


def queries(page: str) -> list[str]:
    """Return every PromQL expression of a page; a first look has one a line."""
    found: list[str] = []
    for block in blocks(page, "promql"):
        found += block.text.strip().splitlines() if block.section == "First look" else [block.text]
    return found


def prose(page: str) -> str:
    """Return a page without what is set as code."""
    plain = re.sub(r"^ *```.*?^ *```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", plain)


def steps(page: str) -> list[ByHand]:
    """Return the steps by hand, in order."""
    if "## By hand\n" not in page:
        return []
    section = page.split("## By hand\n")[1].split("\n## ", maxsplit=1)[0]
    found = []
    for step in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        done = [block.text for block in blocks(step, "sh")]
        assert len(done) in (2, 3), step
        assert "\nCheck: " in step, step
        assert "\nUndo:" in step, step
        found.append(ByHand(step.splitlines()[0], done[0], done[1], done[2] if len(done) == 3 else ""))
    return found
