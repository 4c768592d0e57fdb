"""A page says what changed from one rendering to the next, and why; people's notes survive."""

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.chaos.drill import Outcome
from controlplane.degradation.matrix import Level
from controlplane.policy.model import Policy
from controlplane.render.artefacts import keep, render
from controlplane.render.runbooks import history
from tests.golden.cases import DRILLS, HOSTILE, drill, policy

P0 = "runbooks/P0-switch-to-standby.md"
DAY = date(2026, 11, 22)


def lines(page: str) -> list[str]:
    """Return what the history says, newest first."""
    table = page.split("| --- | --- | --- |\n")[1].split("\n\n", maxsplit=1)[0]
    return [line.split(" | ", 2)[2].removesuffix(" |") for line in table.splitlines()]


def promising(minutes: int) -> Policy:
    full = policy("full")
    row = replace(full.degradation.rows[Level.P0], within=timedelta(minutes=minutes))
    rows = {**full.degradation.rows, Level.P0: row}
    return replace(full, degradation=replace(full.degradation, rows=rows))


def test_a_page_begins_with_its_first_rendering_and_the_day_it_was_written() -> None:
    page = keep("", render(policy("full"), (), "a.yaml")[P0], DAY)
    assert lines(page) == ["first rendering"]
    assert "| 2026-11-22 | `" in page


def test_the_same_rendering_again_changes_nothing_whatever_the_day() -> None:
    made = render(policy("full"), DRILLS, "a.yaml")[P0]
    page = keep("", made, DAY)
    assert keep(page, made, date(2027, 1, 1)) == page


def test_a_change_of_the_policy_is_named_with_both_values() -> None:
    page = keep("", render(promising(5), (), "a.yaml")[P0], DAY)
    page = keep(page, render(promising(3), (), "a.yaml")[P0], DAY)
    assert lines(page) == ["promise: 5m → 3m", "first rendering"]


def test_a_drill_that_came_since_is_named_with_what_it_measured() -> None:
    page = keep("", render(policy("full"), DRILLS, "a.yaml")[P0], DAY)
    newer = drill(20, Outcome.PASSED, detected=0.1, decided=0.2, acted=0.3, verified=0.6, healed=3, recovered=9)
    page = keep(page, render(policy("full"), (newer, *DRILLS), "a.yaml")[P0], DAY)
    assert lines(page)[0] == (
        "evidence: drill node-kill-2026-11-10 passed in 0.63 s → drill node-kill-2026-11-20 passed in 0.50 s"
    )


def test_names_that_come_and_go_are_told_apart() -> None:
    old = f"x\n{history.section('0' * 12, {'alerts': ('A', 'B')})}\ny"
    new = f"x\n{history.section('1' * 12, {'alerts': ('B', 'C')})}\ny"
    assert lines(history.carry_history(old, new, DAY))[0] == "alerts: +C, −A"  # noqa: RUF001 - a minus sign


def test_a_page_that_says_the_same_in_other_words_says_so() -> None:
    old, new = (f"{history.section(digit * 12, {'promise': '5m'})}\n" for digit in "01")
    assert lines(history.carry_history(old, new, DAY))[0].startswith("wording only")


def test_a_history_that_somebody_broke_begins_anew_and_breaks_nothing() -> None:
    new = render(policy("full"), (), "a.yaml")[P0]
    for broken in ("<!-- revisions:begin nonsense -->\n<!-- revisions:end -->", "<!-- revisions:begin ", "[]"):
        assert lines(keep(broken, new, DAY)) == ["first rendering"]


def test_a_history_keeps_its_newest_lines_only() -> None:
    page = ""
    for n in range(history.KEPT + 9):
        page = history.carry_history(page, f"{history.section(f'{n:012x}', {'n': str(n)})}\n", DAY)
    assert len(lines(page)) == history.KEPT
    assert lines(page)[0] == f"n: {history.KEPT + 7} → {history.KEPT + 8}"


@given(st.text(max_size=400), st.text(max_size=400))
def test_whatever_a_fact_holds_it_is_read_back_and_ends_no_comment(one: str, other: str) -> None:
    old = f"{history.section('0' * 12, {'x': one})}\n"
    page = history.carry_history(old, f"{history.section('1' * 12, {'x': other})}\n", DAY)
    assert len(lines(page)) == 2
    begun = next(line for line in page.splitlines() if line.startswith(history.BEGIN))
    assert begun.count("-->") == 1
    assert begun.endswith("-->")
    assert history.carry_history(page, f"{history.section('1' * 12, {'x': other})}\n", DAY) == page


@pytest.mark.parametrize("hostile", [HOSTILE, "a | b", "| 2026 | `000000000000` | forged |"])
def test_hostile_facts_stay_in_their_cell(hostile: str) -> None:
    old = f"{history.section('0' * 12, {'x': 'well'})}\n"
    page = history.carry_history(old, f"{history.section('1' * 12, {'x': hostile})}\n", DAY)
    (why, first) = lines(page)
    assert first == "first rendering"
    assert "<img" not in why.replace("\\<", "")
    assert max(len(line) for line in page.splitlines()) < 3_000


def test_notes_and_history_survive_together() -> None:
    old = keep("", render(promising(5), (), "a.yaml")[P0], DAY).replace("Nothing yet.", "Ask Li <b>first</b>.")
    page = keep(old, render(promising(3), (), "a.yaml")[P0], DAY)
    assert "Ask Li <b>first</b>." in page
    assert len(lines(page)) == 2
