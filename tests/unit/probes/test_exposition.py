"""Pages that are read by their known lines say what the library says, to the last bit, and never miss a change."""

import math
import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from controlplane.probes.exposition import Layouts, Scrape

PAGES = sorted((Path(__file__).parents[2] / "pages").glob("*.prom"))


def by_library(content: bytes) -> list[tuple[str, dict[str, str], float]]:
    text = "\n".join(line for line in content.decode().split("\n") if not line.startswith("#"))
    families = text_string_to_metric_families(text)
    return [(s.name, dict(s.labels), float(s.value)) for f in families for s in f.samples]


def as_read(scrape: Scrape) -> list[tuple[str, dict[str, str], float]]:
    pairs = zip(scrape.layout.series, scrape.values, strict=True)
    return [(series.name, dict(series.labels), value) for series, value in pairs]


def same(got: list[tuple[str, dict[str, str], float]], wanted: list[tuple[str, dict[str, str], float]]) -> bool:
    return [x[:2] for x in got] == [x[:2] for x in wanted] and all(
        a[2] == b[2] or (math.isnan(a[2]) and math.isnan(b[2])) for a, b in zip(got, wanted, strict=True)
    )


def other_numbers(content: bytes, seed: int) -> bytes:
    """Return the page as it may look at the next scrape."""
    chance = random.Random(seed)
    texts = [b"0.0", b"17", b"1.5e+09", b"NaN", b"+Inf", b"-3.25e-07", b"123456789.12345678"]
    lines = [
        line if line.startswith(b"#") or not line else re.sub(rb"[^ ]+$", lambda _: chance.choice(texts), line)
        for line in content.split(b"\n")
    ]
    return b"\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_real_pages_are_read_as_the_library_reads_them(page: Path) -> None:
    content, layouts = page.read_bytes(), Layouts()
    first = layouts.read(content)
    assert first.layout.skeleton, "the fast way was not taken"
    assert same(as_read(first), by_library(content))
    for seed in range(5):
        following = other_numbers(content, seed)
        again = layouts.read(following, first.layout)
        assert again.layout is first.layout
        assert same(as_read(again), by_library(following))


def test_the_captured_pages_are_there() -> None:
    assert len(PAGES) >= 4


PAGE = b'# TYPE a counter\na_total{x="1"} 1\na_total{x="2"} 2\nb 3\n'


@pytest.mark.parametrize(
    "changed",
    [
        PAGE + b"c 4\n",
        PAGE.replace(b"b 3\n", b""),
        PAGE.replace(b'x="2"', b'x="3"'),
        PAGE.replace(b"counter", b"gauge  "),
        PAGE.replace(b"counter", b"counter of things"),
        PAGE.replace(b"b 3", b"bb 3"),
        b'b 3\na_total{x="1"} 1\na_total{x="2"} 2\n',
        PAGE.replace(b"b 3", b"b 3 1700000000000"),
        PAGE.replace(b"b 3", b"b  3"),
        PAGE.replace(b"b 3", b"b\t3"),
        PAGE.replace(b'"2"', b'"quo\\"te} 9"'),
        PAGE.replace(b'{x="2"}', b'{ x = "2" , }'),
        PAGE.replace(b"\n", b"\r\n"),
        PAGE.replace(b"b 3", b"b 3 "),
    ],
)
def test_a_page_that_changed_is_seen_to_have_changed(changed: bytes) -> None:
    layouts = Layouts()
    known = layouts.read(PAGE).layout
    assert same(as_read(layouts.read(changed, known)), by_library(changed))
    assert same(as_read(layouts.read(PAGE, known)), by_library(PAGE))


@pytest.mark.parametrize(
    "bad",
    [
        b"b 1_000\n",
        b"b 3",
        b"b\n",
        b"b x\n",
        b"\xff\xfe 1\n",
        b'a{x="1} 2\n',
        b"a 1\na 2\n",
        b"",
        b"<html>\n",
        b'x{a="1", ="2"} 1\n',
    ],
)
def test_what_is_no_page_is_refused(bad: bytes) -> None:
    layouts = Layouts()
    known = layouts.read(b"b 3\n").layout
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says, the look fails with it
        layouts.read(bad, known)


def test_pages_that_look_alike_share_one_layout_and_unwanted_numbers_are_not_read() -> None:
    layouts = Layouts(lambda name: name == "b")
    first, second = layouts.read(PAGE), layouts.read(PAGE.replace(b"b 3", b"b 4"))
    assert first.layout is second.layout
    assert as_read(second) == [("b", {}, 4.0)]
    third = layouts.read(PAGE.replace(b'x="2"', b'x="4"'), first.layout)
    assert third.layout is not first.layout


names = st.from_regex(r"[a-z_:][a-z0-9_:]{0,6}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters='\n\r"\\', exclude_categories=("Cc", "Zl", "Zp", "Zs")))


@given(
    st.lists(
        st.tuples(names, st.dictionaries(names.filter(lambda n: ":" not in n), texts, max_size=3), st.floats()),
        max_size=8,
        unique_by=lambda x: (x[0], frozenset(x[1].items())),
    )
)
def test_any_page_is_read_as_the_library_reads_it(series: list[tuple[str, dict[str, str], float]]) -> None:
    lines = [
        name + ("{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}" if labels else "") + f" {value!r}"
        for name, labels, value in series
        if not any(label.startswith("__") for label in labels)
    ]
    content = ("\n".join(lines) + "\n").encode()
    assert same(as_read(Layouts().read(content)), by_library(content))
