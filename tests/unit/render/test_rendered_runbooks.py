"""Runbooks say what the policy promises, what drills measured, and only commands that exist."""

import re
from dataclasses import replace

import pytest

from controlplane.chaos.drill import Outcome
from controlplane.render.artefacts import keep_notes, render
from tests.golden.cases import DRILLS, HOSTILE, NAMES, drill, hostile_policy, policy

P0 = "runbooks/P0-switch-to-standby.md"
COMMANDS = {
    "check",
    "render",
    "resume",
    "serve",
    "up",
    "drill",
    "heal",
    "status",
    "demo",
    "level",
    "record",
    "simulate",
    "brake",
    "approve",
    "refuse",
}


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_headed_tidy_and_end_with_their_revision(name: str) -> None:
    for path, text in render(policy(name), DRILLS, "my page.yaml").items():
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), path
        if path.endswith(".md"):
            head = "<!-- rendered from my page.yaml by `controlplane render`; edit my page.yaml -->"
            assert text.splitlines()[0] == head
            assert re.search(r"^Revision `[0-9a-f]{12}`", text, re.MULTILINE)
            assert "\n\n\n" not in text


@pytest.mark.parametrize("name", NAMES)
def test_rendering_twice_gives_the_same_bytes(name: str) -> None:
    assert render(policy(name), DRILLS, "a.yaml") == render(policy(name), DRILLS, "a.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_only_commands_that_exist_are_named(name: str) -> None:
    for path, text in render(policy(name), DRILLS, "a.yaml").items():
        named = re.findall(r"(?:^|`)controlplane ([a-z]+)", text, re.MULTILINE)
        assert set(named) <= COMMANDS, path


def test_a_row_without_a_drill_says_how_to_get_one() -> None:
    made = render(policy("full"), (), "a.yaml")
    assert "**No drill has proved this row yet**: run `controlplane drill run node-kill`." in made[P0]


def test_a_row_that_cannot_be_drilled_says_why() -> None:
    assert "names no `fleet.substrate`" in render(policy("minimal"), (), "a.yaml")[P0]


def test_the_newest_drill_that_touched_something_is_the_headline() -> None:
    page = render(policy("full"), DRILLS, "a.yaml")[P0]
    assert "**Proven on 2026-11-10:** detected to verified in 0.63 s, of 3m promised." in page


def test_a_failed_newest_drill_takes_the_proof_away_and_says_when_it_last_passed() -> None:
    failed = drill(20, Outcome.FAILED, "too slow", detected=0.1, verified=400)
    page = render(policy("full"), (failed, *DRILLS), "a.yaml")[P0]
    assert "**Not proven:** the newest drill (2026-11-20) ended as failed. It last passed on 2026-11-10." in page


def test_the_evidence_table_has_a_line_for_each_drill_with_its_seconds() -> None:
    page = render(policy("full"), DRILLS, "a.yaml")[P0]
    (passed,) = (line for line in page.splitlines() if line.startswith("| 2026-11-10"))
    cells = [cell.strip() for cell in passed.strip("|").split("|")]
    assert cells[1:] == ["`node-kill`", "passed", "0.05", "0.26", "0.33", "0.68", "31.20", "62.50", "0.63", "3m", "yes"]
    assert "refused" not in page.split("## Promise and proof")[1].split("## First look")[0]


def test_drills_of_another_row_prove_nothing_here() -> None:
    page = render(policy("full"), (drill(20, Outcome.PASSED, row="P1", detected=1, verified=2),), "a.yaml")[P0]
    assert "Not proven" in page


def test_the_mode_that_moves_nothing_is_said_aloud() -> None:
    assert "**Mode `observe`: it moves nothing.**" in render(policy("full"), (), "a.yaml")[P0]


def test_every_manual_step_has_its_check_and_its_undo() -> None:
    page = render(policy("full"), (), "a.yaml")[P0]
    steps = re.split(r"^### ", page.split("## By hand")[1].split("## Escalation")[0], flags=re.MULTILINE)[1:]
    assert len(steps) == 5
    for step in steps:
        assert "\nCheck: " in step
        assert "\nUndo:" in step


def test_notes_of_people_survive_the_next_rendering() -> None:
    old = render(policy("full"), (), "a.yaml")[P0]
    begin, end = old.index("<!-- notes:begin -->") + len("<!-- notes:begin -->"), old.index("<!-- notes:end -->")
    noted = f"{old[:begin]}\nAsk Li first. {{{{ 7*7 }}}} <!-- notes:end --> is not the end\n{old[end:]}"
    new = render(policy("full"), DRILLS, "a.yaml")[P0]
    kept = keep_notes(noted, new)
    assert "Ask Li first. {{ 7*7 }} <!-- notes:end --> is not the end" in kept
    assert "Proven on 2026-11-10" in kept
    assert keep_notes(kept, new) == kept


def test_a_page_without_markers_is_replaced_whole() -> None:
    assert keep_notes("no markers here", "new") == "new"
    assert keep_notes("<!-- notes:end --> x <!-- notes:begin -->", "new") == "new"


def test_hostile_values_come_out_inert() -> None:
    bad = replace(
        drill(20, Outcome.FAILED, HOSTILE, "a | b\n\n# c", detected=0.1, verified=400), experiment=HOSTILE, id=HOSTILE
    )
    made = render(hostile_policy(), (bad,), HOSTILE)
    for path, text in made.items():
        assert not re.search(r"[^A-Za-z0-9._/-]", path)
        assert "\u202e" not in text or not path.endswith(".md")
        if path.endswith(".md"):
            prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
            spans = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", prose)
            assert not re.search(r"(?<!\\)<(?!!-- (notes:|rendered))", spans), path
            assert "\n## head" not in text
            assert "49" not in re.findall(r"7\*7|49", spans)
            assert max(len(line) for line in prose.splitlines()) < 3_000
