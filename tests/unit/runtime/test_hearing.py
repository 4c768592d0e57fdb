"""What people said to another replica is followed once, and what they ended there is let go of."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from controlplane.degradation.instruction import Instruction, Kind
from controlplane.degradation.matrix import Level
from controlplane.flows.decide import Decider
from controlplane.runtime import hearing
from controlplane.runtime.hearing import PATIENCE_S, Hearing

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
PIN = Instruction("i1", "chat", Kind.PIN, Level.P1, "ann", "peak", T0)
BRAKE = Instruction("i2", "chat", Kind.BRAKE, Level.NONE, "bob", "we measure", T0)


class Matrix:
    """As much of a decider as hearing touches."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.dropped: list[str] = []
        self.holds: list[Instruction] = []
        self.why_not = ""

    def refusal(self, kind: Kind, level: Level) -> str:
        return self.why_not

    def instruct(self, instruction: Instruction) -> None:
        self.told.append(instruction.id)
        self.holds.append(instruction)

    def drop(self, instruction: Instruction) -> None:
        self.dropped.append(instruction.id)
        self.holds.remove(instruction)

    def held(self) -> tuple[Instruction, ...]:
        return tuple(self.holds)


class Book:
    """Instructions in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Instruction] = {}

    async def begin(self, instruction: Instruction) -> None:
        self.kept[instruction.id] = instruction

    async def end(self, instruction_id: str, at: datetime, by: str, why: str) -> None:
        self.kept[instruction_id] = replace(self.kept[instruction_id], ended_at=at, ended_by=by, ended_why=why)

    async def in_force(self, service: str) -> tuple[Instruction, ...]:
        return tuple(i for i in self.kept.values() if i.ended_at is None and i.service == service)

    async def recent(self, service: str, limit: int) -> tuple[Instruction, ...]:
        return tuple(self.kept.values())


class World:
    """A replica that may be in charge."""

    def __init__(self) -> None:
        self.matrix, self.book, self.acting, self.now = Matrix(), Book(), True, 100.0
        self.hearing = Hearing(
            "chat", self.book, cast("Decider", self.matrix), lambda: self.acting, lambda: T0 + timedelta(minutes=1)
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(hearing, "monotonic", lambda: made.now)
    return made


async def test_what_was_said_elsewhere_is_followed_once(world: World) -> None:
    await world.book.begin(PIN)
    for _ in range(3):
        await world.hearing.tick()
    assert world.matrix.told == ["i1"]
    await world.book.begin(BRAKE)
    await world.hearing.tick()
    assert world.matrix.told == ["i1", "i2"]


async def test_what_was_said_to_us_is_followed_once_whoever_is_quicker(world: World) -> None:
    await world.book.begin(PIN)
    world.hearing.take(PIN)
    await world.hearing.tick()
    await world.book.begin(BRAKE)
    await world.hearing.tick()
    world.hearing.take(BRAKE)
    assert world.matrix.told == ["i1", "i2"]


async def test_what_the_matrix_was_resumed_with_is_not_said_again(world: World) -> None:
    await world.book.begin(PIN)
    world.matrix.holds.append(PIN)
    world.hearing.resumed((PIN,))
    await world.hearing.tick()
    assert world.matrix.told == []
    await world.book.end("i1", T0, "bob", "over")
    await world.hearing.tick()
    assert world.matrix.dropped == ["i1"]


async def test_a_brake_that_the_control_plane_pulled_itself_is_no_news_and_is_not_let_go_of_while_unstored(
    world: World,
) -> None:
    world.matrix.holds.append(BRAKE)
    await world.hearing.tick()
    await world.book.begin(BRAKE)
    world.matrix.why_not = "the brake is on already"
    await world.hearing.tick()
    world.now += PATIENCE_S
    await world.hearing.tick()
    assert (world.matrix.told, world.matrix.dropped) == ([], [])
    assert world.book.kept["i2"].ended_at is None


async def test_what_was_ended_elsewhere_is_let_go_of(world: World) -> None:
    await world.book.begin(PIN)
    await world.hearing.tick()
    await world.book.end("i1", T0, "bob", "over")
    for _ in range(2):
        await world.hearing.tick()
    assert world.matrix.dropped == ["i1"]


async def test_what_was_said_to_us_and_ended_elsewhere_before_we_looked_is_let_go_of(world: World) -> None:
    await world.book.begin(BRAKE)
    world.hearing.take(BRAKE)
    await world.book.end("i2", T0, "ann", "done")
    await world.hearing.tick()
    assert world.matrix.dropped == ["i2"]


async def test_what_is_said_to_us_while_the_database_answers_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = world.book.in_force

    async def slow(service: str) -> tuple[Instruction, ...]:
        found = await read(service)
        await world.book.begin(BRAKE)
        world.hearing.take(BRAKE)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(world.book, "in_force", slow)
        await world.hearing.tick()
    await world.hearing.tick()
    assert world.matrix.dropped == []
    await world.book.end("i2", T0, "ann", "done")
    await world.hearing.tick()
    assert world.matrix.dropped == ["i2"]


async def test_what_cannot_be_followed_waits_a_moment_and_is_ended_with_the_reason(world: World) -> None:
    await world.book.begin(PIN)
    world.matrix.why_not = "its lever is being moved"
    await world.hearing.tick()
    world.now += PATIENCE_S / 2
    await world.hearing.tick()
    assert world.book.kept["i1"].ended_at is None
    world.now += PATIENCE_S
    await world.hearing.tick()
    ended = world.book.kept["i1"]
    assert (ended.ended_by, ended.ended_why) == ("", "not followed: its lever is being moved")
    assert world.matrix.told == []


async def test_what_could_not_be_followed_for_a_moment_is_followed_then(world: World) -> None:
    await world.book.begin(PIN)
    world.matrix.why_not = "its lever is being moved"
    await world.hearing.tick()
    world.matrix.why_not = ""
    await world.hearing.tick()
    assert world.matrix.told == ["i1"]


async def test_one_that_is_not_in_charge_follows_nothing(world: World) -> None:
    world.acting = False
    await world.book.begin(PIN)
    await world.hearing.tick()
    assert world.matrix.told == []


async def test_a_word_said_to_one_that_is_not_in_charge_is_followed_by_it_only_when_it_is_again(world: World) -> None:
    release = replace(PIN, id="i3", kind=Kind.RELEASE)
    world.acting = False
    await world.book.begin(release)
    world.hearing.take(release)
    assert world.matrix.told == []
    world.acting = True
    for _ in range(2):
        await world.hearing.tick()
    assert world.matrix.told == ["i3"]


async def test_a_pin_or_a_brake_said_to_one_that_is_not_in_charge_is_shown_there_at_once(world: World) -> None:
    world.acting = False
    for said in (PIN, BRAKE):
        await world.book.begin(said)
        world.hearing.take(said)
    assert world.matrix.told == ["i1", "i2"]


async def test_only_the_newest_ids_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "REMEMBERED", 10)
    for n in range(50):
        world.hearing.take(replace(PIN, id=f"n{n}"))
    assert len(world.hearing._known) == 10
