"""Following one kind of object, as Kubernetes wants it: list page by page, watch from there, resume, list anew; pure.

`Following` says what to ask next and what an answer means; a driver does the asking. A watch that ends is begun again
where it was; bookmarks move that place on while nothing happens; `410 Gone` means that the place is lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PAGE = 500
"""Objects that one page of a list holds at most, as `kubectl` asks for."""
WATCH_S = 60
"""How long a watch may last; the server ends it. A connection that died without a word is noticed after that."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
"""Between tries: the pause doubles. An API server that restarts takes seconds, and one client a kind is no crowd."""


class GoneError(Exception):
    """The API server no longer knows the place from which to go on."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to ask next."""

    verb: str
    """`list` or `watch`."""
    query: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """What is new."""

    objects: tuple[Mapping[str, Any], ...]
    whole: bool = False
    """These are all there are: whatever else was known is gone."""
    removed: bool = False
    """These are no longer there."""


class Following:
    """Where the following of one kind stands."""

    def __init__(self) -> None:
        self.version = ""
        """The place from which to watch; empty: list first."""
        self._continue = ""
        self._pages: list[Mapping[str, Any]] = []
        self._failures = 0

    def ask(self) -> Ask:
        """Return what to ask next."""
        if not self.version:
            more = {"continue": self._continue} if self._continue else {}
            return Ask("list", {"limit": str(PAGE), **more})
        place = {"resourceVersion": self.version, "timeoutSeconds": str(WATCH_S)}
        return Ask("watch", {"watch": "1", "allowWatchBookmarks": "true", **place})

    def listed(self, page: Mapping[str, Any]) -> Change | None:
        """Take one page of a list; returns everything there is once the last one has come.

        Raises:
            ValueError: when it is no list.
        """
        meta, items = page.get("metadata"), page.get("items") or []
        if not isinstance(meta, Mapping) or not meta.get("resourceVersion") or not isinstance(items, list):
            raise ValueError("the answer is no list of objects")
        self._failures = 0
        self._pages += items
        self._continue = str(meta.get("continue") or "")
        if self._continue:
            return None
        whole, self._pages = tuple(self._pages), []
        self.version = str(meta["resourceVersion"])
        return Change(whole, whole=True)

    def told(self, line: Mapping[str, Any]) -> Change | None:
        """Take one line of a watch; a bookmark changes nothing.

        Raises:
            GoneError: when the server says that it no longer knows the place.
            ValueError: on any other error that it reports, and on a line of another shape.
        """
        kind, found = line.get("type"), line.get("object")
        if not isinstance(found, Mapping):
            raise ValueError("a line of the watch holds no object")  # noqa: TRY004 - a document's shape
        if kind == "ERROR":
            if found.get("code") == 410:
                raise GoneError
            raise ValueError(f"the API server says: {found.get('message')}")
        meta = found.get("metadata")
        if not isinstance(meta, Mapping) or not meta.get("resourceVersion"):
            raise ValueError("an object of the watch has no version")
        self.version = str(meta["resourceVersion"])
        self._failures = 0
        return None if kind == "BOOKMARK" else Change((found,), removed=kind == "DELETED")

    def gone(self) -> None:
        """Begin again with a list: the place is lost. What is known stays until the list has come."""
        self.version = self._continue = ""
        self._pages = []

    def failed(self, random: float, wanted_s: float = 0.0) -> float:
        """Note a failure; returns how many seconds to pause.

        Args:
            random: 0..1; spreads the pauses of those who lost the same server over half to one and a half of it.
            wanted_s: how long the server asks for (`Retry-After`).
        """
        if not self.version:
            self.gone()  # Half a list is none: its pages belong to a moment that may be lost.
        pause_s: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        return max(wanted_s, pause_s * (0.5 + random))
