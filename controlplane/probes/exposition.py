"""Reading the lines of a metrics page fast: names and labels stay from scrape to scrape, only the numbers move; pure.

`probes/http` keeps the last `Layout` of every endpoint and hands it back in; `probes/metrics` tells what names mean. A
page whose lines begin as they did is cut at the places that are known, and only its numbers are parsed. Every line's
beginning is compared each time, so a new series, a lost one or another order is seen at once, and the page is read
anew. What is odd (timestamps, escapes, exemplars) is left to the `prometheus_client` parser, line for line.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from prometheus_client.parser import text_string_to_metric_families

_SERIES = re.compile(rb'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="[^"\\]*",?)*)\})? ')
"""The beginning of a line that needs no unescaping: `name ` or `name{label="value",...} `."""
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Series:
    """One line's identity."""

    name: str
    """As it stands on the page: `x_bucket`, `x_total`."""
    labels: dict[str, str]


@dataclass(eq=False, slots=True, weakref_slot=True)
class Layout:
    """The lines of a page without their numbers; endpoints whose pages look alike share one."""

    series: tuple[Series, ...]
    """In the page's order; `Scrape.values` has the numbers in the same order."""
    memo: dict[Any, Any] = field(default_factory=dict)
    """For readers: what they worked out about these series, kept as long as pages look like this."""
    ends: tuple[int, ...] = ()
    """Where each line's number begins; the whole length of a comment."""
    skeleton: bytes = b""
    """All beginnings joined; empty for a page that has to be read by the library each time."""
    numbered: tuple[tuple[int, int], ...] = ()
    """(line, where its number begins) of the series."""
    fixed: tuple[tuple[int, int], ...] = ()
    """(line, its length) of comments and empty lines."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """One page as read."""

    layout: Layout
    values: list[float]
    """One number a series; NaN where the page says so."""


class Layouts:
    """The layouts that are in use, so that ten thousand equal endpoints keep one."""

    def __init__(self, wanted: Callable[[str], bool] = lambda _: True) -> None:
        """Take what is wanted: told a series' name, whether its number is to be read at all.

        The beginnings of all lines are compared either way, so a series that is new on a page is never missed.
        """
        self._wanted = wanted
        self._known: WeakValueDictionary[bytes, Layout] = WeakValueDictionary()

    def read(self, content: bytes, known: Layout | None = None) -> Scrape:
        """Read a page.

        Args:
            content: the page, in Prometheus' text format.
            known: how this endpoint's page looked the last time.

        Raises:
            ValueError: when it is not a metrics page, breaks off in a line, or has a series twice.
        """
        if not content.endswith(b"\n"):
            raise ValueError("it breaks off in the middle of a line")
        lines = content.split(b"\n")
        lines.pop()
        if known is not None and known.skeleton:
            values = _numbers(lines, known)
            if values is not None:
                return Scrape(known, values)
        return self._anew(content, lines)

    def _anew(self, content: bytes, lines: list[bytes]) -> Scrape:
        """Find out how a page looks, or recognise it as one of the layouts in use."""
        ends = tuple(len(x) if x[:1] == b"#" or not x else x.rfind(b" ") + 1 for x in lines)
        skeleton = b"\n".join([x[:end] for x, end in zip(lines, ends, strict=True)])
        layout = self._known.get(skeleton) or self._layout(lines, ends, skeleton)
        if layout is not None:
            values = _numbers(lines, layout)
            if values is not None:
                self._known[skeleton] = layout
                return Scrape(layout, values)
        return self._by_library(content)

    def _layout(self, lines: list[bytes], ends: tuple[int, ...], skeleton: bytes) -> Layout | None:
        """Read the beginnings of lines; None when one of them needs the library.

        Raises:
            ValueError: when a series is on the page twice.
        """
        series: list[Series] = []
        numbered: list[tuple[int, int]] = []
        fixed: list[tuple[int, int]] = []
        for i, (line, end) in enumerate(zip(lines, ends, strict=True)):
            if line[:1] == b"#" or not line:
                fixed.append((i, end))
                continue
            match = _SERIES.fullmatch(line, 0, end)
            if match is None:
                return None
            labels = dict(_LABEL.findall((match[2] or b"").decode()))
            series.append(Series(match[1].decode(), labels))
            numbered.append((i, end))
        _refuse_twice(series)
        kept = [i for i, one in enumerate(series) if self._wanted(one.name)]
        return Layout(
            tuple(series[i] for i in kept),
            ends=ends,
            skeleton=skeleton,
            numbered=tuple(numbered[i] for i in kept),
            fixed=tuple(fixed),
        )

    def _by_library(self, content: bytes) -> Scrape:
        """Read a page by the library; comments are left out, since a type would rename series to OpenMetrics' taste.

        Raises:
            ValueError: when the library cannot read it.
        """
        text = b"\n".join(line for line in content.split(b"\n") if line[:1] != b"#").decode()
        try:
            samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
        except (LookupError, TypeError, AttributeError) as error:  # Its parser trips over a label without a name.
            raise ValueError(f"a line cannot be read: {error}") from error
        _refuse_twice([Series(s.name, dict(s.labels)) for s in samples])
        kept = [s for s in samples if self._wanted(s.name)]
        return Scrape(Layout(tuple(Series(s.name, dict(s.labels)) for s in kept)), [float(s.value) for s in kept])


def _numbers(lines: list[bytes], layout: Layout) -> list[float] | None:
    """Return the numbers of a page that looks as `layout` says; None when it does not, or something is odd."""
    ends = layout.ends
    if len(lines) != len(ends) or b"\n".join([x[:n] for x, n in zip(lines, ends, strict=True)]) != layout.skeleton:
        return None
    texts = [lines[i][n:] for i, n in layout.numbered]
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    if any([len(lines[i]) != n for i, n in layout.fixed]):  # noqa: C419 - a list is twice as fast here
        return None
    # Python reads `1_0` as a number, the format does not.
    return None if b"_" in b"".join(texts) else values


def _refuse_twice(series: list[Series]) -> None:
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for one in series:
        key = (one.name, frozenset(one.labels.items()))
        if key in seen:
            raise ValueError(f"`{one.name}` stands twice on it with the same labels")
        seen.add(key)
