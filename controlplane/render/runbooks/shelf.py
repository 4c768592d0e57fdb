"""What every page of the runbooks has: its template, its heading, its revision and its history; pure.

Templates get finished Markdown and inert values; they hold prose and
order, no decisions.
"""

import hashlib
from datetime import date
from functools import cache

from jinja2.sandbox import SandboxedEnvironment

from controlplane.render import markdown
from controlplane.render.markdown import keep_notes
from controlplane.render.runbooks import history
from controlplane.render.runbooks.history import Facts
from controlplane.render.templating import sandbox


@cache
def environment() -> SandboxedEnvironment:
    """Return the templates, sandboxed; what reaches them is escaped by the filters."""
    made = sandbox(html=False)  # Markdown: the filters below escape for it.
    made.filters |= {"text": markdown.text, "prose": markdown.prose, "code": markdown.code, "table": markdown.table}
    return made


def finish(body: str, source: str, facts: Facts, newest: str = "") -> str:
    """Head a page, drop what whitespace templates leave, and end it with its history and its revision.

    Args:
        body: the page as its template gave it.
        source: the policy page's name.
        facts: what the page was made of, by name.
        newest: id of the newest drill that it tells of; empty without one.
    """
    lines = "\n".join(line.rstrip() for line in body.splitlines())
    while "\n\n\n" in lines:
        lines = lines.replace("\n\n\n", "\n\n")
    revision = hashlib.sha256(lines.encode()).hexdigest()[:12]
    evidence = f"; newest evidence: drill {markdown.code(newest)}" if newest else ""
    return (
        f"{markdown.comment(f'rendered from {source} by `controlplane render`; edit {source}')}\n\n"
        f"{lines.strip()}\n\n## Revision history\n\n{history.section(revision, facts)}\n\n---\n\n"
        f"Revision `{revision}`, made from {markdown.code(source)}{evidence}.\n"
    )


def keep(old_text: str, new_text: str, today: date | None = None) -> str:
    """Carry what a page has gathered over to its next rendering: people's notes, and its history.

    Args:
        old_text: the page as it stands; empty when there is none.
        new_text: the page as it was just rendered.
        today: the date of the rendering, UTC.
    """
    return history.carry_history(old_text, keep_notes(old_text, new_text), today)
