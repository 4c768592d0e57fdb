"""Whatever a value holds, a page shows it as text."""

from hypothesis import given
from hypothesis import strategies as st

from controlplane.render.markdown import Table, code, comment, prose, shell, table, text
from controlplane.render.wording import inert, slug


@given(st.text())
def test_text_is_one_line_without_live_markup(value: str) -> None:
    shown = text(value)
    assert len(shown.splitlines()) <= 1
    for mark in "`<>|*[]":
        assert shown.count(mark) == shown.count(f"\\{mark}")


@given(st.text())
def test_a_code_span_is_closed_by_its_own_fence_only(value: str) -> None:
    span = code(value)
    assert len(span.splitlines()) == 1
    if inert(value):
        fence = len(span) - len(span.lstrip("`"))
        assert fence >= 1
        assert "`" * fence not in span[fence:-fence]


@given(st.text())
def test_a_comment_ends_where_it_should(value: str) -> None:
    assert comment(value).count("-->") == 1
    assert comment(value).count(">") - comment(value).count("&gt;") <= 1


@given(st.text())
def test_a_file_name_stays_in_its_directory(value: str) -> None:
    assert "/" not in slug(value)
    assert slug(value).strip(".")


def test_a_shell_word_is_one_word() -> None:
    assert shell("$(reboot) 'x'\n; ls") == "'$(reboot) '\"'\"'x'\"'\"' ; ls'"


def test_columns_stand_under_each_other() -> None:
    made = table(Table(("A", "Longer"), (("x", "1"), ("yyyy", "22")), right=frozenset({1})))
    assert made.splitlines() == ["| A    | Longer |", "| ---- | -----: |", "| x    |      1 |", "| yyyy |     22 |"]


def test_a_sentence_of_ours_keeps_its_code_and_a_name_in_it_brings_nothing_with_it() -> None:
    assert prose("see `/health`, then <b> and *x*") == r"see `/health`, then \<b\> and \*x\*"
    assert prose("a `b|c` d") == r"a `b\|c` d"
    assert prose("one ` too many") == text("one ` too many")
    assert "<img" not in prose("`ok` <img src=x onerror=alert(1)>").replace(r"\<img", "")
