"""One JSON object a line on standard output: what an endpoint says about itself and about every request."""

import json
import logging
import sys
import traceback
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

    def adopt(self) -> None:
        """Have what libraries log, warnings and worse, written as lines of this log too."""
        logging.getLogger().addHandler(_Adopted(self))

    def failure(self, message: str, error: BaseException, **fields: Any) -> None:
        """Write an error with its stack trace."""
        trace = "".join(traceback.format_exception(error))
        self.write("error", message, exception=trace, **fields)


class _Adopted(logging.Handler):
    """Turns log records into lines."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        self._log.write(record.levelname.lower(), record.getMessage(), **fields)
