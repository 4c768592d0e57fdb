"""The runbooks as the console shows them: the files, with what people wrote on them since; or as they were rendered."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from controlplane.render.runbooks.shelf import keep
from controlplane.render.runbooks.subject import Subject


class Library:
    """Every page of the runbooks."""

    def __init__(self, directory: Path, subjects: Mapping[str, Subject], dashboard: str) -> None:
        """Take what it lends.

        Args:
            directory: where rendered files are written.
            subjects: what each page is about, by its name.
            dashboard: path of the fleet's dashboard on the Grafana server.
        """
        self._directory = directory
        self.subjects = subjects
        self.dashboard = dashboard
        self._rendered: Mapping[str, str] = {}

    def rendered(self, texts: Mapping[str, str]) -> None:
        """Take the newest rendering in, by path."""
        self._rendered = texts

    async def text(self, name: str) -> str | None:
        """Return a page as Markdown; None when there is none of that name."""
        subject = self.subjects.get(name)
        if subject is None:
            return None
        fresh = self._rendered.get(subject.path, "")
        return await asyncio.to_thread(self._read, subject.path, fresh)

    def _read(self, path: str, fresh: str) -> str:
        try:
            old = (self._directory / path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return fresh
        return keep(old, fresh) if fresh else old
