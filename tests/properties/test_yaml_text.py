"""Whatever is written as YAML is read back as it was, by a reader that knows nothing of the writer."""

from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.render.alerting.yaml_text import dump
from tests.golden.cases import HOSTILE

ODD = [
    "no",
    "Yes",
    "null",
    "~",
    "1e3",
    "0x1f",
    "1:30",
    "12:30:45",
    "2026-11-22",
    "{}",
    "[",
    "@",
    "5s",
    "1h30m",
    "P0",
    "'",
    '"',
    "<<",
    "=",
    "*a",
    "&a",
    "!t",
    "%x",
    "`",
    "?",
    "a:b",
    "#x",
    "- a",
    "a: b",
    "a #b",
    "a\nb",
    "a\n\nb",
    " a\nb",
    "a\n",
    "\n",
    "",
    " ",
    "a ",
    "\ta",
    "a\tb\nc",
]
texts = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(ODD)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_./-]{0,8}", fullmatch=True)
pages: st.SearchStrategy[Any] = st.recursive(
    texts | st.integers(-(10**9), 10**9) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(names, pages, min_size=1, max_size=5))
@example({"a": HOSTILE, "b": [HOSTILE, {"c": [[HOSTILE]]}]})
@example({"a": "x\u0085y\u2028z\ufeff\u202e"})
@example({"on": {"y": "n"}})
def test_what_is_written_is_read_back(page: dict[str, Any]) -> None:
    assert yaml.safe_load(dump(page)) == page
