"""The journey of the written word: policy and evidence -> alerts, dashboards, runbooks -> what changed -> files.

What people wrote between the notes markers of a runbook survives every rendering.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.errors import RunDirError
from controlplane.render.markdown import keep_notes
from controlplane.wholefile import write_whole


@dataclass(frozen=True, slots=True)
class Change:
    """One file that is not as it should be."""

    path: str
    """Relative to the publish directory."""
    kind: str
    """`new` or `changed`."""


def compare(rendered: Mapping[str, str], directory: Path) -> tuple[dict[str, str], tuple[Change, ...]]:
    """Hold freshly rendered artefacts against the files there are.

    Returns:
        The texts with people's notes kept, and the files that differ.

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
            texts[name] = text
            changes.append(Change(name, "new"))
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise RunDirError(
                f"cannot read {path}", str(error), "move it away: the next rendering writes it anew"
            ) from error
        texts[name] = keep_notes(old, text)
        if texts[name] != old:
            changes.append(Change(name, "changed"))
    return texts, tuple(changes)


def publish(rendered: Mapping[str, str], directory: Path) -> tuple[Change, ...]:
    """Write the artefacts that changed, each whole or not at all.

    Raises:
        RunDirError: when the directory cannot be written.
    """
    texts, changes = compare(rendered, directory)
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
