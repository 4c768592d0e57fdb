"""A file that is not as its page says is told why."""

from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.flows.publish import compare, publish
from controlplane.lint.drift import LOCK, Origin, origin_of, read_lock
from tests.golden.cases import DRILLS

PAGE = Origin("page", "none")
TEXTS = {"alerts/a.yml": "a\n", "runbooks/b.md": "b\n<!-- notes:begin -->\n<!-- notes:end -->\n"}


def whys(directory: Path, texts: dict[str, str], origin: Origin = PAGE) -> dict[str, tuple[str, str]]:
    return {change.path: (change.kind, change.why) for change in compare(texts, directory, origin)[1]}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    assert {change.why for change in publish(TEXTS, tmp_path, PAGE)} == {"never rendered"}
    return tmp_path


def test_files_that_were_just_rendered_are_as_they_should_be(published: Path) -> None:
    assert whys(published, TEXTS) == {}
    assert sorted(read_lock((published / LOCK).read_text()).files) == sorted(TEXTS)


@pytest.mark.parametrize(
    ("origin", "why"),
    [
        (Origin("other", "none"), "the page changed"),
        (Origin("page", "other"), "the evidence changed"),
        (Origin("other", "other"), "the page changed and the evidence changed"),
        (PAGE, "this version of controlplane writes it differently"),
    ],
)
def test_what_was_rendered_from_something_else_says_so(published: Path, origin: Origin, why: str) -> None:
    assert whys(published, {**TEXTS, "alerts/a.yml": "c\n"}, origin) == {"alerts/a.yml": ("changed", why)}


def test_a_hand_is_seen_and_notes_are_no_hand(published: Path) -> None:
    (published / "alerts/a.yml").write_text("a\nmine\n")
    assert whys(published, TEXTS) == {"alerts/a.yml": ("changed", "edited by hand")}
    noted = TEXTS["runbooks/b.md"].replace("begin -->", "begin -->\nAsk Ada.")
    (published / "runbooks/b.md").write_text(noted)
    assert "runbooks/b.md" not in whys(published, TEXTS)
    newer = {**TEXTS, "runbooks/b.md": TEXTS["runbooks/b.md"].replace("b\n", "c\n")}
    assert whys(published, newer, Origin("other", "none"))["runbooks/b.md"] == ("changed", "the page changed")


def test_a_file_that_is_gone_and_one_that_was_never_there_are_told_apart(published: Path) -> None:
    (published / "alerts/a.yml").unlink()
    assert whys(published, {**TEXTS, "alerts/new.yml": "n\n"}) == {
        "alerts/a.yml": ("new", "deleted by hand"), "alerts/new.yml": ("new", "never rendered"),
    }  # fmt: skip


def test_a_file_that_is_rendered_no_longer_is_left_and_told_until_it_is_deleted(published: Path) -> None:
    fewer = {"alerts/a.yml": "a\n"}
    left = {"runbooks/b.md": ("left over", "no longer rendered: delete it")}
    assert whys(published, fewer) == left
    publish(fewer, published, PAGE)
    assert (published / "runbooks/b.md").exists()
    assert whys(published, fewer) == left
    (published / "runbooks/b.md").unlink()
    publish(fewer, published, PAGE)
    assert whys(published, fewer) == {}
    assert list(read_lock((published / LOCK).read_text()).files) == ["alerts/a.yml"]


@pytest.mark.parametrize("lock", ["", "{", "[]", '{"files": 3}', "null"])
def test_a_lock_that_says_nothing_leaves_the_reason_open(published: Path, lock: str) -> None:
    (published / LOCK).write_text(lock)
    assert whys(published, {**TEXTS, "alerts/a.yml": "c\n"}) == {
        "alerts/a.yml": ("changed", "nothing here says what it was made from")
    }


def test_the_lines_that_differ_are_told(published: Path) -> None:
    (change,) = compare({**TEXTS, "alerts/a.yml": "c\n"}, published, PAGE)[1]
    assert change.lines[-2:] == ("-a", "+c")


def test_the_origin_follows_the_page_and_the_evidence_and_nothing_else() -> None:
    page = {"service": "a", "fleet": {"b": 1, "c": 2}}
    origin = origin_of(page, DRILLS)
    assert origin == origin_of({"fleet": {"c": 2, "b": 1}, "service": "a"}, DRILLS)
    assert origin_of({**page, "service": "b"}, DRILLS).page != origin.page
    assert origin_of(page, DRILLS[1:]).evidence != origin.evidence
    assert origin_of(page, (replace(DRILLS[0], journal="elsewhere"), *DRILLS[1:])) == origin
    assert origin_of(page, ()).evidence == "none"
