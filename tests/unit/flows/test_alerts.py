"""Alerts during a drill: a silence as long as the faults, and a contract that fails the drill when it is broken."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.chaos.contract import Contract, Firing, Silence, broken
from controlplane.chaos.drill import Outcome
from controlplane.chaos.experiment import Walk
from controlplane.chaos.fault import FaultKind
from controlplane.errors import UnreachableError
from controlplane.flows.alerts import Watched, follow, settle
from controlplane.flows.drill import Order, run
from controlplane.flows.faults import FaultRequest, heal, inject
from tests.unit.flows.drilling import COMPLETED, EXPERIMENT, Bench, FakeLog, TimedLeases, refuse, utcnow

NOW = utcnow()
CONTRACT = Contract(("DegradationEngaged",), ("ObjectiveMissed",))
ASKING = replace(EXPERIMENT, expected_alerts=CONTRACT.expected, forbidden_alerts=CONTRACT.forbidden)


@dataclass(slots=True)
class FakeRoom:
    """An Alertmanager in memory."""

    fires: list[Firing] = field(default_factory=list)
    silences: list[Silence] = field(default_factory=list)
    lifted: list[str] = field(default_factory=list)
    answers: bool = True
    refuses: list[str] = field(default_factory=list)
    """Calls that are not answered, one time each."""
    known: set[str] = field(default_factory=set)
    """Ids of the silences that are in force; a restart may forget them."""

    async def silence(self, silence: Silence) -> str:
        self._ask("silence")
        if silence.id and silence.id not in self.known:
            raise UnreachableError("Alertmanager does not do as asked", "silence not found", "make a new one")
        self.silences.append(silence)
        made = silence.id or f"s{len(self.silences)}"
        self.known.add(made)
        return made

    async def lift(self, silence_id: str) -> None:
        self._ask("lift")
        self.lifted.append(silence_id)
        self.known.discard(silence_id)

    async def firing(self) -> tuple[Firing, ...]:
        self._ask("firing")
        return tuple(self.fires)

    def _ask(self, call: str) -> None:
        if call in self.refuses or not self.answers:
            self.refuses = [other for other in self.refuses if other != call]
            raise UnreachableError("Alertmanager does not answer", "refused", "start it")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.flows.alerts.ARRIVE_WITHIN_S", 0.2)
    monkeypatch.setattr("controlplane.flows.alerts.LOOK_EVERY_S", 0.01)


def bench(tmp_path: Path, room: FakeRoom, *fires: str) -> Bench:
    async def child(bench: Bench, order: Order) -> Walk:
        await bench.break_primaries(order)
        room.fires += [Firing(name, utcnow(), "chat") for name in fires]
        while room.answers and not room.silences and bench.experiment.expected_alerts:
            await bench.tick()
        await heal(bench.faults, order.drill_id)
        return COMPLETED

    return Bench(child, tmp_path, room=room, experiment=ASKING)


async def test_the_expected_alerts_are_silenced_until_the_last_deadline_and_no_longer(tmp_path: Path) -> None:
    room = FakeRoom()
    made = bench(tmp_path, room, "DegradationEngaged")
    ended = await run(made.ports, await made.begun())
    assert (ended.outcome, ended.reasons) == (Outcome.PASSED, ())
    (silence,) = room.silences
    assert silence.alerts == ("DegradationEngaged",)
    assert silence.ends_at == max(lease.deadline for lease in made.leases.kept.values())
    assert ended.id in silence.comment
    assert room.lifted == ["s1"]
    assert any(text.startswith("DegradationEngaged fires") for text in made.log.texts("alert"))


@pytest.mark.parametrize(
    ("fires", "reasons"),
    [
        ((), ("expected alert DegradationEngaged did not fire",)),
        (("DegradationEngaged", "ObjectiveMissed"), ("forbidden alert ObjectiveMissed fired",)),
    ],
)
async def test_a_broken_contract_fails_the_drill(
    tmp_path: Path, fires: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    made = bench(tmp_path, FakeRoom(), *fires)
    ended = await run(made.ports, await made.begun())
    assert (ended.outcome, ended.reasons) == (Outcome.FAILED, reasons)


async def test_an_alertmanager_that_never_answers_fails_the_contract_and_nothing_else(tmp_path: Path) -> None:
    made = bench(tmp_path, FakeRoom(answers=False))
    ended = await run(made.ports, await made.begun())
    assert (ended.outcome, ended.reasons) == (Outcome.FAILED, ("the alerts are unknown: refused",))
    assert all(not lease.open for lease in made.leases.kept.values())


@pytest.mark.parametrize(
    ("contract", "fired", "reasons"),
    [
        (Contract((), ("ObjectiveMissed",)), (), ("the alerts are unknown: refused",)),
        (CONTRACT, ("DegradationEngaged",), ("the alerts are unknown: refused",)),
        (Contract(CONTRACT.expected), (), ("the alerts are unknown: refused",)),
        (
            Contract(CONTRACT.expected, ("*",)),
            ("Other",),
            ("the alerts are unknown: refused", "forbidden alert Other fired"),
        ),
        (Contract(CONTRACT.expected), CONTRACT.expected, ()),
    ],
    ids=["forbidden", "expected was seen", "expected", "forbidden was seen", "kept already"],
)
async def test_an_alertmanager_that_dies_with_the_fault_vouches_for_nothing(
    tmp_path: Path, contract: Contract, fired: tuple[str, ...], reasons: tuple[str, ...]
) -> None:
    made, room, watched = bench(tmp_path, FakeRoom()), FakeRoom(), Watched()
    drill = (await made.begun()).drill
    ports = replace(made.ports.alerts, room=room)
    room.fires = [Firing(name, utcnow(), "chat") for name in fired]
    following = asyncio.create_task(follow(ports, drill, contract, watched))
    async with asyncio.timeout(10):
        while not watched.looked:
            await made.tick()
    room.answers = False
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert await settle(ports, drill, contract, watched) == reasons


async def test_an_alertmanager_that_is_back_at_the_end_is_asked_again(tmp_path: Path) -> None:
    made, room = bench(tmp_path, FakeRoom()), FakeRoom(refuses=["firing"])
    drill = (await made.begun()).drill
    room.fires = [Firing("DegradationEngaged", utcnow(), "chat")]
    assert await settle(replace(made.ports.alerts, room=room), drill, CONTRACT, Watched()) == ()


async def test_an_alertmanager_that_answers_again_after_a_stall_is_asked_once_more(tmp_path: Path) -> None:
    made, now = bench(tmp_path, FakeRoom()), [utcnow()]
    drill = (await made.begun()).drill

    class Stalled(FakeRoom):
        async def firing(self) -> tuple[Firing, ...]:
            if self.refuses:
                now.append(now.pop() + timedelta(minutes=1))
            return await super().firing()

    room = Stalled([Firing("DegradationEngaged", utcnow(), "chat")], refuses=["firing"])
    ports = replace(made.ports.alerts, room=room, now=lambda: now[0])
    assert await settle(ports, drill, CONTRACT, Watched()) == ()


@pytest.mark.parametrize("call", ["silence", "lift", "firing"])
async def test_a_word_that_alertmanager_did_not_take_is_said_again_and_keeps_nothing_from_being_seen(
    tmp_path: Path, call: str
) -> None:
    room = FakeRoom(refuses=[call])
    made = bench(tmp_path, room, "DegradationEngaged")
    ended = await run(made.ports, await made.begun())
    assert (ended.outcome, ended.reasons, room.refuses) == (Outcome.PASSED, (), [])
    assert room.silences
    assert room.known == set()


@pytest.mark.parametrize("away", [["firing"], []], ids=["seen to be away", "away between two looks"])
async def test_a_silence_that_a_restart_forgot_is_made_anew(tmp_path: Path, away: list[str]) -> None:
    made, room, watched = bench(tmp_path, FakeRoom()), FakeRoom(), Watched()
    drill = (await made.begun()).drill
    ports = replace(made.ports.alerts, room=room)
    await inject(made.faults, drill, FaultRequest(FaultKind.NODE_KILL, "primary", 0.5, timedelta(seconds=30)))
    following = asyncio.create_task(follow(ports, drill, CONTRACT, watched))

    async def silenced() -> None:
        async with asyncio.timeout(10):
            while not room.known:
                await made.tick()

    await silenced()
    room.refuses, room.known = away, set()
    if not away:  # Then it is found out when the silence has to last longer.
        await inject(made.faults, drill, FaultRequest(FaultKind.NODE_KILL, "primary", 0.5, timedelta(seconds=60)))
    await silenced()
    room.fires = [Firing("ObjectiveMissed", utcnow(), "chat")]
    async with asyncio.timeout(10):
        while not watched.fired:
            await made.tick()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert room.silences[-1].id == ""
    assert room.silences[-1].ends_at == max(lease.deadline for lease in made.leases.kept.values())


class OtherLeases(TimedLeases):
    """The lease book as the alerts see it: refused to them, it is not refused to the watch."""


async def test_the_alerts_are_followed_on_after_a_database_that_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = FakeRoom()
    made = bench(tmp_path, room, "DegradationEngaged")
    refuse(monkeypatch, OtherLeases, "of_drill", 2)
    ports = replace(made.ports, alerts=replace(made.ports.alerts, leases=OtherLeases(made.leases.kept)))
    async with asyncio.timeout(10):
        ended = await run(ports, await made.begun())
    assert ended.outcome is Outcome.PASSED
    assert room.lifted == ["s1"]


async def test_what_fired_counts_though_neither_the_faults_are_known_nor_a_note_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(tmp_path, FakeRoom())
    drill = (await made.begun()).drill
    refuse(monkeypatch, TimedLeases, "of_drill", 1_000_000)
    refuse(monkeypatch, FakeLog, "note", 1_000_000)
    room = FakeRoom([Firing(name, utcnow(), "chat") for name in ("DegradationEngaged", "ObjectiveMissed")])
    reasons = await settle(replace(made.ports.alerts, room=room), drill, CONTRACT, Watched())
    assert reasons == ("forbidden alert ObjectiveMissed fired",)


async def test_without_an_alertmanager_nothing_is_asked(tmp_path: Path) -> None:
    made = bench(tmp_path, FakeRoom(answers=False))
    made.room = None
    assert (await run(made.ports, await made.begun())).outcome is Outcome.PASSED


def test_what_fired_before_the_drill_or_for_others_proves_nothing() -> None:
    old = Firing("DegradationEngaged", NOW - timedelta(seconds=1), "chat")
    others = Firing("DegradationEngaged", NOW, "another")
    assert broken(CONTRACT, (old, others), NOW, "chat") == ("expected alert DegradationEngaged did not fire",)
    assert broken(CONTRACT, (replace(old, since=NOW),), NOW, "chat") == ()
    assert broken(CONTRACT, (replace(others, service=""),), NOW, "chat") == ()


def test_a_star_forbids_whatever_is_not_expected_but_the_watchdog() -> None:
    fired = [Firing(name, NOW) for name in ("DegradationEngaged", "Watchdog", "PoolUnknown")]
    assert broken(Contract(("DegradationEngaged",), ("*",)), fired, NOW, "chat") == (
        "forbidden alert PoolUnknown fired",
    )
    assert not Contract()
