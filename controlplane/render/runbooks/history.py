"""A page's revision history: what changed from one rendering to the next, kept on the page itself; pure.

Every page carries the facts it was made of. When it is written anew over an older one, the facts of the two are
compared, and a line that says what changed and why goes on top of the older one's lines.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from controlplane.render import markdown
from controlplane.render.wording import inert

BEGIN = "<!-- revisions:begin "
END = "<!-- revisions:end -->"
KEPT = 40
"""Lines of history a page keeps; the oldest go."""
LONGEST_FACT = 200
LONGEST_WHY = 600
_HEAD = ("| Date (UTC) | Revision | What changed, and why |", "| --- | --- | --- |")
_NOT_WRITTEN = "not written yet"
_LINE = re.compile(r"^\| [^|]* \| `[0-9a-f]{12}` \| .* \|$")

Fact = str | Sequence[str]
Facts = Mapping[str, Fact]
"""By what a person would call it: a text, or a list of names of which some come and go."""


@dataclass(frozen=True, slots=True)
class _History:
    revision: str
    facts: Facts
    lines: tuple[str, ...]


def section(revision: str, facts: Facts) -> str:
    """Return the history of a page that was never written before.

    Args:
        revision: twelve hexadecimal digits that stand for the page's text.
        facts: what the page was made of, by name.
    """
    kept = {name: _cut(fact) for name, fact in facts.items()}
    return _spell(_History(revision, kept, (_line(None, revision, "first rendering"),)))


def carry_history(old_text: str, new_text: str, today: date | None) -> str:
    """Carry the history of a page over to its next rendering.

    Args:
        old_text: the page as it stands; empty when there is none.
        new_text: the page as it was just rendered.
        today: the date of the rendering, UTC; None leaves a new line without one.

    Returns:
        The new page with the old one's history, and a line on top of it when the page has changed.
    """
    old, new = _read(old_text), _read(new_text)
    if new is None:
        return new_text
    if old is None:
        lines: tuple[str, ...] = (_line(today, new.revision, "first rendering"),)
    elif old.revision == new.revision:
        lines = old.lines
    else:
        lines = (_line(today, new.revision, _why(old.facts, new.facts)), *old.lines)
    begin, end = _bounds(new_text)
    return new_text[:begin] + _spell(_History(new.revision, new.facts, lines[:KEPT])) + new_text[end:]


def _why(old: Facts, new: Facts) -> str:
    """Say what differs between the facts of two renderings."""
    changed = [_change(name, old.get(name, ""), fact) for name, fact in new.items() if old.get(name, "") != fact]
    changed += [f"{markdown.text(name)}: gone" for name in old if name not in new]
    why = "; ".join(changed) or "wording only: the templates say it differently"
    return why if len(why) <= LONGEST_WHY else f"{why[: LONGEST_WHY - 1].rstrip(chr(92))}…"


def _change(name: str, old: Fact, new: Fact) -> str:
    said = markdown.text(name)
    if isinstance(new, str):
        return f"{said}: {_spelled(old) or 'new'} → {_spelled(new) or 'none'}" if old else f"{said}: {_spelled(new)}"
    before = [] if isinstance(old, str) else list(old)
    come = [f"+{markdown.text(item)}" for item in new if item not in before]
    gone = [f"−{markdown.text(item)}" for item in before if item not in new]  # noqa: RUF001 - a minus sign
    return f"{said}: {', '.join([*come, *gone]) or 'in another order'}"


def _spelled(fact: Fact) -> str:
    return markdown.text(fact if isinstance(fact, str) else ", ".join(fact))


def _cut(fact: Fact) -> Fact:
    return inert(fact, LONGEST_FACT) if isinstance(fact, str) else [inert(item, 60) for item in fact]


def _line(day: date | None, revision: str, why: str) -> str:
    return f"| {day.isoformat() if day else _NOT_WRITTEN} | `{revision}` | {why} |"


def _spell(history: _History) -> str:
    made_of = json.dumps({"revision": history.revision, "facts": history.facts}, ensure_ascii=True, sort_keys=False)
    inside = made_of.replace("<", "\\u003c").replace(">", "\\u003e").replace("--", "-\\u002d")
    return "\n".join((f"{BEGIN}{inside} -->", "", *_HEAD, *history.lines, "", END))


def _bounds(page: str) -> tuple[int, int]:
    begin, end = page.rfind(BEGIN), page.rfind(END)
    return (begin, end + len(END)) if 0 <= begin < end else (-1, -1)


def _read(page: str) -> _History | None:
    """Read a page's history; None when it has none, or somebody has broken it."""
    begin, end = _bounds(page)
    if begin < 0:
        return None
    first, *rest = page[begin:end].splitlines()
    try:
        made_of = json.loads(first[len(BEGIN) :].removesuffix("-->"))
        revision, facts = str(made_of["revision"]), dict(made_of["facts"])
    except (ValueError, KeyError, TypeError):
        return None
    return _History(revision, facts, tuple(line for line in rest if _LINE.match(line)))
