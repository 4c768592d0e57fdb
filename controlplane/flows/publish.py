"""The journey of the written word: policy and evidence -> alerts, dashboards, runbooks -> what changed -> files.

What people wrote between the notes markers of a runbook survives every rendering, and so does its revision history.
What the files were made from is kept beside them (`lint/drift`), so that a difference can be told from another.
"""

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from controlplane.errors import RunDirError
from controlplane.lint.drift import LEFT_OVER, LOCK, Lock, Origin, lines_of, lock_of, read_lock, why_differs
from controlplane.render.runbooks.shelf import keep
from controlplane.wholefile import write_whole


@dataclass(frozen=True, slots=True)
class Change:
    """One file that is not as it should be."""

    path: str
    """Relative to the publish directory."""
    kind: str
    """`new`, `changed`, or `left over`."""
    why: str = ""
    """Such as `edited by hand`."""
    lines: tuple[str, ...] = ()
    """A unified diff from what is there to what would be rendered; empty for a file that is not there."""


def compare(
    rendered: Mapping[str, str], directory: Path, origin: Origin | None = None, today: date | None = None
) -> tuple[dict[str, str], tuple[Change, ...]]:
    """Hold freshly rendered artefacts against the files there are.

    Args:
        rendered: texts by path.
        directory: where they are published.
        origin: what they were rendered from, to tell why a file differs.
        today: the date (UTC) that a page's history gets for a change.

    Returns:
        The texts with people's notes and their own history kept, and the files that differ.

    Raises:
        RunDirError: when a file that is there cannot be read.
    """
    lock = _lock(directory)
    texts: dict[str, str] = {}
    changes: list[Change] = []
    for name, text in rendered.items():
        old = _read(directory / name)
        texts[name] = keep(old or "", text, today)
        if texts[name] != old:
            why = why_differs(name, old, lock, origin or lock.origin)
            lines = () if old is None else lines_of(name, old, texts[name])
            changes.append(Change(name, "new" if old is None else "changed", why, lines))
    changes += [Change(name, "left over", LEFT_OVER) for name in _left_over(lock, rendered, directory)]
    return texts, tuple(changes)


def publish(
    rendered: Mapping[str, str], directory: Path, origin: Origin | None = None, today: date | None = None
) -> tuple[Change, ...]:
    """Write the artefacts that changed, each whole or not at all, and what they were made from.

    Files that are rendered no longer are left where they are: they may hold people's notes.

    Raises:
        RunDirError: when the directory cannot be written.
    """
    texts, changes = compare(rendered, directory, origin, today)
    for change in changes:
        if change.path in texts:
            _write(directory / change.path, texts[change.path])
    lock = _lock(directory)
    left_over = {name: lock.files[name] for name in _left_over(lock, rendered, directory)}
    kept = lock_of(origin or lock.origin, rendered, left_over)
    if kept != _read(directory / LOCK):
        with suppress(RunDirError) if not changes else nullcontext():
            _write(directory / LOCK, kept)  # Nothing to write must not fail for a lock on a disk that is read-only.
    return changes


def _lock(directory: Path) -> Lock:
    return read_lock(_read(directory / LOCK) or "")


def _left_over(lock: Lock, rendered: Mapping[str, str], directory: Path) -> list[str]:
    return [name for name in lock.files if name not in rendered and (directory / name).is_file()]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise RunDirError(
            f"cannot read {path}", str(error), "move it away: the next rendering writes it anew"
        ) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise RunDirError(
            f"cannot write {path}", str(error), "make `publish.dir` writable, and free space on its disk"
        ) from error
