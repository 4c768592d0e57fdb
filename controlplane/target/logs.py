"""One JSON object a line on standard output: what an endpoint says about itself and about every request."""

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


class Log:
    """Writes lines that all carry the same facts about their writer."""

    def __init__(self, **facts: str) -> None:
        """Keep the facts."""
        self._facts = facts

    def write(self, level: str, message: str, **fields: Any) -> None:
        """Write one line, stamped in RFC 3339 UTC; a reader that has gone away stops no request."""
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"ts": stamp, "level": level, "msg": message, **self._facts, **fields}
        with suppress(BrokenPipeError):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
