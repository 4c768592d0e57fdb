"""What people are told: the reason with the worry, where they are paged and on the timeline."""

from datetime import UTC, datetime

import pytest

from controlplane.degradation.instruction import Kind
from controlplane.degradation.matrix import Level
from controlplane.degradation.turn import Told, Worry
from controlplane.errors import StoreError
from controlplane.flows.people import TellPorts, tell
from controlplane.incidents.correlate import Notice, Ruling
from controlplane.incidents.incident import Incident, IncidentState
from tests.unit.flows.fakes import FakeIncidents
from tests.unit.flows.world import Books, running

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
FAILED = Told(Level.P0, Worry.FAILED, "P0 could not be put in force; no other row is left: a person has to act")


async def test_a_page_says_why_the_row_was_refused_and_says_it_once() -> None:
    paged: list[str] = []

    async def page(text: str) -> None:
        paged.append(text)

    incidents = FakeIncidents()
    incidents.kept["i"] = Incident("i", "chat", Level.P0, "chat: down", IncidentState.OPEN, NOW)
    ports = TellPorts("chat", Books().instructions, incidents, lambda: NOW, page)
    ports.why_not[Level.P0] = "switch_pool to standby was refused: standby-0 did not answer"
    await tell(ports, FAILED)
    await tell(ports, FAILED)
    assert paged == [f"{FAILED.text} (switch_pool to standby was refused: standby-0 did not answer)", FAILED.text]
    assert incidents.texts("page") == paged


class Shut(FakeIncidents):
    """An incident book that cannot be reached."""

    async def take(self, service: str, notices: tuple[Notice, ...], now: datetime) -> Ruling:
        raise StoreError("the database does not answer", "connection refused", "start it")

    async def open_incidents(self, service: str) -> tuple[Incident, ...]:
        raise StoreError("the database does not answer", "connection refused", "start it")


async def test_people_are_paged_whatever_the_database_says() -> None:
    paged: list[str] = []

    async def page(text: str) -> None:
        paged.append(text)

    ports = TellPorts("chat", Books().instructions, Shut(), lambda: NOW, page)
    await tell(ports, FAILED)
    assert paged == [FAILED.text]


async def test_what_is_late_is_told_without_an_old_refusal() -> None:
    paged: list[str] = []

    async def page(text: str) -> None:
        paged.append(text)

    ports = TellPorts("chat", Books().instructions, FakeIncidents(), lambda: NOW, page)
    ports.why_not[Level.P0] = "an old reason"
    await tell(ports, Told(Level.P0, Worry.LATE, "P0 has not mended the harm in its time"))
    assert paged == ["P0 has not mended the harm in its time"]


async def test_a_follower_stores_what_only_the_one_in_charge_can_judge_and_refuses_what_never_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(monkeypatch) as world:
        refusal = world.decider.refusal
        assert "cannot be released now" in refusal(Kind.RELEASE, Level.P0)
        world.acting = False
        for kind in (Kind.RELEASE, Kind.APPROVE, Kind.PIN):
            assert refusal(kind, Level.P0) == ""
        assert refusal(Kind.BRAKE, Level.NONE) == ""
        assert "not armed" in refusal(Kind.PIN, Level.P2)
