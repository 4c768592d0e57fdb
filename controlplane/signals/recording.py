"""Recorded signals as text, a line a value: JSON lines, or CSV with a heading; pure.

`runtime/recorder` writes them while a service runs, `flows/simulate` reads them; people may write their own.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from controlplane.errors import UsageError
from controlplane.signals.sample import CATALOGUE

COLUMNS = ("at", "pool", "signal", "value", "samples")
ALERT = "alert"
"""Stands in the place of a signal's pool: `signal` is then the alert's name, `value` 1 while it fires and 0 after."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one signal at one moment."""

    at: datetime
    pool: str
    signal: str
    value: float | None
    """In the signal's base unit; None when it was not known."""
    samples: int = 0


def spell_points(points: Iterable[Point]) -> Iterator[str]:
    """Write points as JSON lines."""
    for point in points:
        row = (
            point.at.astimezone(UTC).isoformat(timespec="milliseconds"), point.pool, point.signal, point.value,
            point.samples,
        )  # fmt: skip
        yield json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n"


def read_points(text: str, name: str) -> tuple[Point, ...]:
    """Read JSON lines or CSV.

    Args:
        text: what was recorded.
        name: of the file, for messages.

    Returns:
        The points in the order of their times.

    Raises:
        UsageError: when a line cannot be read, with its number.
    """
    lines = text.splitlines()
    first = next((line for line in lines if line.strip()), "")
    if not first:
        raise UsageError(f"{name} holds no recorded signal", "it is empty", "record one: controlplane record > FILE")
    rows = _json_lines(lines, name) if first.lstrip().startswith("{") else _csv(lines, name)
    points = tuple(_point(row, f"{name}:{number}") for number, row in rows)
    if not points:
        raise UsageError(f"{name} holds no recorded signal", "it has a heading only", "record one: controlplane record")
    return tuple(sorted(points, key=lambda point: point.at))


def _json_lines(lines: list[str], name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{name}:{number} is not JSON", str(error), "mend or drop the line") from error
        if not isinstance(row, dict):
            raise UsageError(f"{name}:{number} is not an object", "a line is one value", f"with {', '.join(COLUMNS)}")
        yield number, row


def _csv(lines: list[str], name: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(lines)
    lacking = [column for column in COLUMNS[:4] if column not in (reader.fieldnames or ())]
    if lacking:
        raise UsageError(
            f"{name}:1 has no column {', '.join(lacking)}", "CSV begins with a heading", f"write {','.join(COLUMNS)}"
        )
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key is not None}


def _point(row: Mapping[str, object], where: str) -> Point:
    try:
        at = datetime.fromisoformat(str(row["at"]))
        pool, signal = str(row["pool"]), str(row["signal"])
        value, samples = row["value"], row.get("samples")
        number = None if value is None or value == "" else float(str(value))
        count = int(str(samples)) if samples not in (None, "") else 0
    except KeyError as error:
        raise UsageError(f"{where} lacks {error}", "a line is one value", f"with {', '.join(COLUMNS)}") from error
    except ValueError as error:
        raise UsageError(f"{where} cannot be read", str(error), "mend or drop the line") from error
    if at.tzinfo is None:
        raise UsageError(f"{where} does not say of which time zone it is", str(row["at"]), "write 2026-01-01T10:00:00Z")
    if number is not None and not isfinite(number):
        number = None
    if pool != ALERT and signal not in CATALOGUE:
        raise UsageError(f"{where} names no signal", signal, f"one of: {', '.join(CATALOGUE)}")
    return Point(at, pool, signal, number, count)
