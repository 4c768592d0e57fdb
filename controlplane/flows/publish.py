"""The journey of the written word: policy and evidence -> alerts, dashboards, runbooks -> what changed -> files.

What people wrote between the notes markers of a runbook survives every rendering, and so does its revision history.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from controlplane.errors import RunDirError
from controlplane.render.runbooks.shelf import keep
from controlplane.wholefile import write_whole


@dataclass(frozen=True, slots=True)
class Change:
    """One file that is not as it should be."""

    path: str
    """Relative to the publish directory."""
    kind: str
    """`new` or `changed`."""


def compare(
    rendered: Mapping[str, str], directory: Path, today: date | None = None
) -> tuple[dict[str, str], tuple[Change, ...]]:
    """Hold freshly rendered artefacts against the files there are.

    Args:
        rendered: texts by path.
        directory: where the files are.
        today: the date (UTC) that a page's history gets for a change.

    Returns:
        The texts with people's notes and their own history kept, and the files that differ.

    Raises:
        RunDirError: when a file that is there cannot be read.
    """
    texts: dict[str, str] = {}
    changes: list[Change] = []
    for name, text in rendered.items():
        path = directory / name
        try:
            old = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            texts[name] = keep("", text, today)
            changes.append(Change(name, "new"))
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise RunDirError(
                f"cannot read {path}", str(error), "move it away: the next rendering writes it anew"
            ) from error
        texts[name] = keep(old, text, today)
        if texts[name] != old:
            changes.append(Change(name, "changed"))
    return texts, tuple(changes)


def publish(rendered: Mapping[str, str], directory: Path, today: date | None = None) -> tuple[Change, ...]:
    """Write the artefacts that changed, each whole or not at all.

    Raises:
        RunDirError: when the directory cannot be written.
    """
    texts, changes = compare(rendered, directory, today)
    for change in changes:
        path = directory / change.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, texts[change.path])
        except OSError as error:
            raise RunDirError(
                f"cannot write {path}", str(error), "make `publish.dir` writable, and free space on its disk"
            ) from error
    return changes
