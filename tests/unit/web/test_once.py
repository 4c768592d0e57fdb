"""A write that is sent twice is done once, and answered alike; whoever mixes keys up is told; failures are not kept."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from controlplane.errors import FaultError, StoreError
from controlplane.security.replays import KEPT
from controlplane.security.roles import Role
from tests.support.doors import FILE_TOKEN, text_of
from tests.unit.web.test_api import Told
from tests.unit.web.test_guard import Site, started

DRILL = ("/api/v1/drills", {"experiment": "node-kill"})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with started(Told()) as found:
        yield found


async def send(
    site: Site, key: str, path: str = DRILL[0], body: Any = None, token: str = FILE_TOKEN
) -> aiohttp.ClientResponse:
    return await site.ask("POST", path, token, DRILL[1] if body is None else body, {"idempotency-key": key})


async def test_the_same_key_is_done_once_and_answered_alike(site: Site) -> None:
    first = await send(site, "k1")
    again = await send(site, '"k1"')
    assert (first.status, again.status) == (202, 202)
    assert await first.json() == await again.json()
    assert again.headers["content-type"] == first.headers["content-type"]
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    assert len(site.told.calls) == 1
    assert (await send(site, "k2")).status == 202
    assert len(site.told.calls) == 2


async def test_a_replay_is_no_second_deed_in_the_audit_log(site: Site) -> None:
    await send(site, "k")
    before = list(site.doors.audit.outcomes)
    await send(site, "k")
    assert site.doors.audit.outcomes == before
    assert [outcome for _, _, outcome in before] == ["asked", "done 202"]


async def test_the_same_key_with_another_request_is_a_mistake_and_nothing_is_done(site: Site) -> None:
    await send(site, "k")
    for path, body in ((DRILL[0], {"experiment": "other"}), ("/api/v1/heal", {}), (DRILL[0] + "?x=1", DRILL[1])):
        assert (await send(site, "k", path, body)).status == 422
    assert len(site.told.calls) == 1


async def test_keys_of_different_credentials_are_strangers(site: Site) -> None:
    await send(site, "k")
    assert "idempotent-replayed" not in (await send(site, "k", token=text_of(Role.OPERATOR))).headers
    assert len(site.told.calls) == 2


async def test_who_may_not_learns_nothing_from_a_key(site: Site) -> None:
    await send(site, "k")
    assert (await send(site, "k", token=text_of(Role.VIEWER))).status == 403
    assert (await send(site, "k", token="wrong")).status == 401


async def test_while_the_first_is_under_way_the_second_waits_elsewhere(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    end = site.doors.replays.end

    async def slow(*given: Any) -> None:
        begun.set()
        await go_on.wait()
        await end(*given)

    monkeypatch.setattr(type(site.doors.replays), "end", lambda _, *given: slow(*given))
    first = asyncio.create_task(send(site, "k"))
    await begun.wait()
    second = await send(site, "k")
    assert (second.status, second.headers["retry-after"]) == (409, "1")
    go_on.set()
    assert (await first).status == 202
    assert len(site.told.calls) == 1


async def test_a_failure_is_not_kept_and_a_refusal_is(site: Site) -> None:
    site.told.answer = FaultError("a", "b", "c")
    assert [(await send(site, "k")).status for _ in range(2)] == [503, 503]
    assert len(site.told.calls) == 2
    assert [(await send(site, "j", body={})).status for _ in range(2)] == [422, 422]
    assert len(site.doors.replays.kept) == 1


async def test_a_write_that_breaks_is_not_kept(site: Site) -> None:
    site.told.answer = RuntimeError("boom")
    assert (await send(site, "k")).status == 500
    assert site.doors.replays.kept == {}


async def test_what_could_not_be_recorded_is_not_remembered_as_done(site: Site) -> None:
    site.doors.audit.broken = StoreError("the database refuses", "disk full", "free space")
    assert (await send(site, "k")).status == 503
    site.doors.audit.broken = None
    assert (await send(site, "k")).status == 202
    assert len(site.told.calls) == 1


async def test_a_key_that_cannot_be_kept_has_nothing_done(site: Site) -> None:
    site.doors.replays.broken = StoreError("the database refuses", "disk full", "free space")
    assert (await send(site, "k")).status == 503
    assert site.told.calls == []
    assert (await site.ask("POST", "/api/v1/heal", FILE_TOKEN, {})).status == 200


async def test_a_key_is_forgotten_after_a_day(site: Site) -> None:
    await send(site, "k")
    site.doors.pass_time(KEPT - timedelta(seconds=1))
    assert "idempotent-replayed" in (await send(site, "k")).headers
    site.doors.pass_time(timedelta(seconds=2))
    assert "idempotent-replayed" not in (await send(site, "k")).headers


async def test_the_secret_of_a_token_is_kept_nowhere_and_there_is_one_token(site: Site) -> None:
    tokens = len(site.doors.tokens.kept)
    first = await send(site, "k", "/api/v1/tokens", {"name": "grafana", "role": "viewer"})
    secret = (await first.json())["token"]
    again = await send(site, "k", "/api/v1/tokens", {"name": "grafana", "role": "viewer"})
    assert (first.status, again.status) == (201, 409)
    assert len(site.doors.tokens.kept) == tokens + 1
    assert secret not in repr(site.doors.replays.kept) + str([a.body for _, a in site.doors.replays.kept.values() if a])


@pytest.mark.parametrize("key", ["", " ", "a b", "é", "x" * 256, '"a'])
async def test_what_is_no_key_is_refused(site: Site, key: str) -> None:
    assert (await send(site, key)).status == 400
    assert site.told.calls == []
