"""What happened is what stands otherwise than before: told once, of the right kind, and nothing of the beginning."""

import asyncio
from dataclasses import replace

import pytest

from controlplane.errors import StoreError
from controlplane.runtime.happenings import Seen, follow, happenings, seen
from controlplane.web.changes import Changes
from tests.support import overviews


def quiet() -> Seen:
    view = overviews.idle()
    return seen(view.standing, view.drills, (), None)


def failing() -> Seen:
    view = overviews.failover()
    return seen(view.standing, view.drills, tuple(one.incident for one in view.incidents if one.incident.open), None)


def test_nothing_happens_while_nothing_changes() -> None:
    assert happenings(failing(), failing()) == ()


def test_a_failover_is_told_kind_by_kind() -> None:
    found = happenings(quiet(), failing())
    kinds = {one.kind for one in found}
    assert {"level", "row", "endpoint", "incident"} <= kinds
    (level,) = [one for one in found if one.kind == "level"]
    assert level.what["level"] == "P0"
    assert any(one.what["up"] is False for one in found if one.kind == "endpoint")


def test_an_incident_that_is_open_no_more_is_resolved_and_an_endpoint_can_leave() -> None:
    view = overviews.failover()
    fewer = replace(view.standing, pools=view.standing.pools[:1])
    found = happenings(failing(), seen(fewer, view.drills, (), None))
    assert {one.what["state"] for one in found if one.kind == "incident"} == {"resolved"}
    assert all(one.what["gone"] for one in found if one.kind == "endpoint")
    assert not any(one.kind == "drill" for one in found)


async def test_it_is_told_when_something_changed_and_a_store_that_fails_is_asked_again() -> None:
    changes = Changes()
    looks: list[Seen | StoreError] = [quiet(), StoreError("no", "", ""), failing()]
    looked = asyncio.Event()

    async def look() -> Seen:
        found = looks.pop(0) if len(looks) > 1 else looks[0]
        if isinstance(found, StoreError):
            raise found
        looked.set()
        return found

    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    following = asyncio.create_task(follow(changes, look, pause))
    await asyncio.wait_for(looked.wait(), 5)
    assert not changes._kept
    changes.tell()
    async with asyncio.timeout(5):
        while not changes._kept:  # noqa: ASYNC110 - the task's own pace
            await asyncio.sleep(0)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    assert {happening.kind for _, happening in changes._kept} >= {"level", "incident"}
