"""The wall clock, in one place, so that deciding modules get `now` as an argument and tests can move it."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Return the current aware UTC time."""
    return datetime.now(tz=UTC)
