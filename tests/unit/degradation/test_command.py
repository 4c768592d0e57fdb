"""Allowed commands run once, with the arguments they have, and leave nothing running."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.degradation.action import Run
from controlplane.degradation.actuators.command import MOST_OUTPUT, CommandHand, run
from controlplane.degradation.errand import CommandSpec, wrong_with_command
from controlplane.errors import ActuatorError
from tests.support.processes import until
from tests.support.waiting import eventually

SH = "/bin/sh"
RUN = Run("drain")


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!{SH}\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def spec(tmp_path: Path) -> CommandSpec:
    """A command that leaves a mark, one that takes it away, and one that looks for it."""
    mark = tmp_path / "mark"
    return CommandSpec(
        (script(tmp_path, "do", f'echo "$@" "$CONTROLPLANE_KEY" >> {mark}; echo did "$1"'), "a b; rm -rf /", "$HOME"),
        (script(tmp_path, "undo", f"rm -f {mark}; echo undid"),),
        (script(tmp_path, "check", f"test -e {mark} && echo it is there"),),
    )


def hand(tmp_path: Path, spec: CommandSpec) -> CommandHand:
    return CommandHand({"drain": spec}, tmp_path / "records")


def gone(pid: str) -> bool:
    """Tell whether a process has ended, reaped by whoever adopted it or not."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True


def lines(tmp_path: Path) -> list[str]:
    mark = tmp_path / "mark"
    return mark.read_text(encoding="utf-8").splitlines() if mark.exists() else []


async def test_a_command_gets_its_arguments_as_they_are_and_runs_once_for_a_key(
    tmp_path: Path, spec: CommandSpec
) -> None:
    assert "would run" in (await hand(tmp_path, spec).preflight(RUN)).preview
    assert lines(tmp_path) == []
    assert await hand(tmp_path, spec).observe(RUN, "k", "") == ""
    said = await hand(tmp_path, spec).apply(RUN, "k")
    assert said == "ran drain: did a b; rm -rf /"
    await hand(tmp_path, spec).apply(RUN, "k")
    assert lines(tmp_path) == ["a b; rm -rf / $HOME k"]
    assert await hand(tmp_path, spec).observe(RUN, "k", "") == "drain is in force: it is there"


async def test_a_command_without_a_check_has_run_as_it_was_stored_on_whatever_machine(
    tmp_path: Path, spec: CommandSpec
) -> None:
    unchecked = replace(spec, check=())
    elsewhere = CommandHand({"drain": unchecked}, tmp_path / "another machine")
    said = await hand(tmp_path, unchecked).apply(RUN, "k")
    assert await elsewhere.observe(RUN, "k", said) == "ran drain: did a b; rm -rf /"
    assert await elsewhere.observe(RUN, "k", "") == ""


async def test_undoing_runs_what_undoes_it_once(tmp_path: Path, spec: CommandSpec) -> None:
    await hand(tmp_path, spec).apply(RUN, "k")
    assert await hand(tmp_path, spec).revert(RUN, "k", {}) == "undid drain: undid"
    (tmp_path / "undo").unlink()
    assert await hand(tmp_path, spec).revert(RUN, "k", {}) == "drain is undone"
    assert await hand(tmp_path, spec).observe(RUN, "k", "") == ""


async def test_after_a_crash_in_the_middle_the_check_says_whether_it_must_run_again(
    tmp_path: Path, spec: CommandSpec
) -> None:
    (tmp_path / "records").mkdir()
    record = tmp_path / "records" / f"{b'drain'.hex()}.json"
    record.write_text(json.dumps({"key": "k", "state": "begun", "output": ""}), encoding="utf-8")
    await hand(tmp_path, spec).apply(RUN, "k")
    assert len(lines(tmp_path)) == 1
    record.write_text(json.dumps({"key": "k", "state": "begun", "output": ""}), encoding="utf-8")
    assert await hand(tmp_path, spec).apply(RUN, "k") == "drain is in force"
    assert len(lines(tmp_path)) == 1


async def test_a_command_that_fails_is_undone_and_its_output_is_told(tmp_path: Path, spec: CommandSpec) -> None:
    failing = CommandSpec((script(tmp_path, "fail", f"touch {tmp_path}/mark; echo no room >&2; exit 3"),), spec.undo)
    with pytest.raises(ActuatorError, match="command drain failed") as failed:
        await hand(tmp_path, failing).apply(RUN, "k")
    assert "status 3: no room" in failed.value.why
    assert lines(tmp_path) == []
    assert await hand(tmp_path, failing).observe(RUN, "k", "") == ""


async def test_at_its_timeout_a_command_is_killed_with_everything_it_started(
    tmp_path: Path, spec: CommandSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    slow = script(tmp_path, "slow", f"trap '' TERM; sleep 900 & echo begun; echo $! $$ > {pids}; wait; sleep 900")
    limited = CommandSpec((slow,), spec.undo, timeout=timedelta(minutes=10))
    applying = asyncio.create_task(hand(tmp_path, limited).apply(RUN, "k"))
    await eventually(lambda: pids.exists() and pids.read_text().endswith("\n"), "it has begun", within_s=60.0)
    loop = asyncio.get_running_loop()
    now_s = loop.time
    monkeypatch.setattr(loop, "time", lambda: now_s() + 600.0)
    with pytest.raises(ActuatorError) as failed:
        await applying
    assert "killed after 600 s: begun" in failed.value.why
    for pid in pids.read_text(encoding="utf-8").split():
        until(lambda pid=pid: gone(pid), 10, "it was killed")  # type: ignore[misc]


async def test_what_a_command_leaves_running_is_ended_when_it_ends(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    ended = await run([script(tmp_path, "leave", f"sleep 600 & echo $! > {pid_file}; echo done")], 30.0, "k")
    assert (ended.status, ended.output) == (0, "done")
    pid = pid_file.read_text(encoding="utf-8").strip()
    until(lambda: gone(pid), 10, "it was ended")


async def test_output_is_bounded_and_the_environment_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    ended = await run([script(tmp_path, "loud", "yes | head -c 1000000; env; echo last")], 30.0, "the-key")
    assert len(ended.output) <= MOST_OUTPUT
    assert ended.output.endswith("last")
    assert "hunter2" not in ended.output
    assert "CONTROLPLANE_KEY=the-key" in ended.output


async def test_what_the_page_does_not_allow_is_not_run(tmp_path: Path, spec: CommandSpec) -> None:
    none = CommandHand({}, tmp_path / "records")
    assert "no command drain" in (await none.preflight(RUN)).refusal
    with pytest.raises(ActuatorError, match="no command drain"):
        await none.apply(RUN, "k")
    absent = CommandSpec(("/does/not/exist",), spec.undo)
    assert "not a program" in (await hand(tmp_path, absent).preflight(RUN)).refusal
    with pytest.raises(ActuatorError):
        await hand(tmp_path, absent).apply(RUN, "k")


async def test_a_record_that_cannot_be_kept_stops_the_command(tmp_path: Path, spec: CommandSpec) -> None:
    (tmp_path / "records").write_text("", encoding="utf-8")
    with pytest.raises(ActuatorError, match="cannot keep what ran"):
        await hand(tmp_path, spec).apply(RUN, "k")
    assert lines(tmp_path) == []


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        (CommandSpec((), ("/bin/true",)), "`run` is empty"),
        (CommandSpec(("/bin/true",), ()), "cannot be undone"),
        (CommandSpec(("true",), ("/bin/true",)), "no absolute path"),
        (CommandSpec(("/bin/true",), ("./undo",)), "no absolute path"),
        (CommandSpec(("/bin/true",), ("/bin/true",), ("check",)), "no absolute path"),
        (CommandSpec(("/bin/true",), ("/bin/true",), timeout=timedelta(0)), "timeout"),
        (CommandSpec(("/bin/true", "-x"), ("/bin/true",)), ""),
    ],
)
def test_a_command_that_may_not_be_allowed_says_why(spec: CommandSpec, wrong: str) -> None:
    assert wrong in wrong_with_command(spec)
    assert bool(wrong) == bool(wrong_with_command(spec))
