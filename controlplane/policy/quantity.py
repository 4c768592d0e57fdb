"""Durations and ratios as people write them: `500ms`, `5m`, `0.5%`; pure."""

import re
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([smh])")
_LARGEST = 1e18
_RATIO = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def duration(text: object) -> timedelta:
    """Read a duration such as `500ms`, `90s`, `1h30m` or `30d`.

    Raises:
        ValueError: when it is anything else; a bare number has no unit and is refused.
    """
    if isinstance(text, str):
        parts = _DURATION.findall(text)
        if parts and "".join(n + u for n, u in parts) == text.strip():
            with suppress(OverflowError):
                return timedelta(seconds=sum(float(n) * _UNITS_S[u] for n, u in parts))
    raise ValueError("a duration such as 500ms, 5s, 2m, 1h30m or 30d")


def ratio(text: object) -> float:
    """Read a ratio such as `0.5%` (or 0.005) as a number from 0 to 1.

    Raises:
        ValueError: when it is anything else, or outside 0..100 %.
    """
    value: float | None = None
    if isinstance(text, str) and (found := _RATIO.fullmatch(text.strip())):
        value = float(found[1]) / 100
    elif isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text <= 1:
        value = float(text)
    if value is None or not 0 <= value <= 1:
        raise ValueError("a ratio from 0% to 100%, such as 0.5%")
    return value


def number(text: object) -> float:
    """Read a plain number that is not negative.

    Raises:
        ValueError: when it is anything else.
    """
    if isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text <= _LARGEST:
        return float(text)
    raise ValueError("a number, such as 100")


def rate(text: object) -> float:
    """Read a rate such as `50/s` or `3000/m` as a number a second; it is more than none.

    Raises:
        ValueError: when it is anything else; a bare number does not say of which time.
    """
    if isinstance(text, str) and (found := _RATE.fullmatch(text.strip())) and float(found[1]) > 0:
        return float(found[1]) / _UNITS_S[found[2]]
    raise ValueError("a rate such as 50/s or 3000/m")


@lru_cache(maxsize=1024)
def spell_duration(value: timedelta) -> str:
    """Write a duration as a person would: the largest units first, nothing that is zero."""
    left_ms = round(value.total_seconds() * 1000)
    if left_ms == 0:
        return "0s"
    words = []
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left_ms = divmod(left_ms, size_ms)
        if count:
            words.append(f"{count}{unit}")
    return "".join(words)
