"""Why a rendered file is not as its page says: what it was made from is kept beside the files; pure.

Called by `flows/publish`. The lock holds a digest of the page as it was read, one of the evidence, and one of every
file without people's notes: what differs from them tells who changed what.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Any

from controlplane.chaos.drill import Drill
from controlplane.render.markdown import NOTES_BEGIN, NOTES_END, keep_notes

LOCK = "rendered.lock"
"""The lock's name in the directory that everything is published in."""

UNRECORDED = "nothing here says what it was made from"
BY_HAND = "edited by hand"
GONE = "deleted by hand"
NEVER = "never rendered"
PAGE = "the page changed"
EVIDENCE = "the evidence changed"
VERSION = "this version of controlplane writes it differently"
LEFT_OVER = "no longer rendered: delete it"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a rendering was made from."""

    page: str = ""
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Lock:
    """What the files that lie there were made from, and as what."""

    origin: Origin = Origin()
    files: Mapping[str, str] = field(default_factory=dict)


def origin_of(resolved: Mapping[str, Any], drills: Sequence[Drill]) -> Origin:
    """Return digests of a page, every default filled in, and of the drills that prove its rows."""
    page = json.dumps(resolved, sort_keys=True, ensure_ascii=False, default=str)
    evidence = [
        (d.id, d.row, d.outcome, d.reasons, sorted((phase, at.isoformat()) for phase, at in d.phases.items()))
        for d in drills
    ]
    return Origin(_digest(page), _digest(json.dumps(evidence, ensure_ascii=False)) if evidence else "none")


def lock_of(origin: Origin, rendered: Mapping[str, str], left_over: Mapping[str, str]) -> str:
    """Write the lock of files that were just rendered, and of those that are rendered no longer and still there."""
    files = {**left_over, **{path: digest_of(text) for path, text in rendered.items()}}
    page = {"page": origin.page, "evidence": origin.evidence, "files": dict(sorted(files.items()))}
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def read_lock(text: str) -> Lock:
    """Read a lock; one that cannot be read is one that says nothing."""
    try:
        found = json.loads(text)
        files = {str(path): str(digest) for path, digest in found["files"].items()}
        return Lock(Origin(str(found["page"]), str(found["evidence"])), files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Lock()


def digest_of(text: str) -> str:
    """Return a file's digest, whatever people wrote between its notes markers."""
    return _digest(keep_notes(f"{NOTES_BEGIN}{NOTES_END}", text))


def why_differs(path: str, old: str | None, lock: Lock, origin: Origin) -> str:
    """Say why a file is not as it would be rendered now.

    Args:
        path: the file's, as in the lock.
        old: what is there; None when nothing is.
        lock: what is kept of the last rendering.
        origin: what a rendering would be made from now.
    """
    if old is None:
        return GONE if path in lock.files else NEVER
    if path not in lock.files:
        return UNRECORDED
    reasons = [BY_HAND] if digest_of(old) != lock.files[path] else []
    reasons += [PAGE] if lock.origin.page != origin.page else []
    reasons += [EVIDENCE] if lock.origin.evidence != origin.evidence else []
    return " and ".join(reasons) or VERSION


def lines_of(path: str, old: str, new: str) -> tuple[str, ...]:
    """Return the lines of a unified diff from what is there to what would be rendered."""
    return tuple(
        line.rstrip("\n")
        for line in unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"{path} (there)", f"{path} (rendered)", n=1
        )
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
