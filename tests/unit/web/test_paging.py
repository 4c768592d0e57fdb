"""Lists page by page: every item once, whatever is added meanwhile, and nothing that was made up passes for a page."""

import re
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import UsageError
from controlplane.web.paging import read_key, read_mark, sliced, spell_key, spell_mark
from tests.unit.web.test_api import Server
from tests.unit.web.test_api import server as server  # noqa: PLC0414 - the fixture

LISTS = ("/api/v1/receipts", "/api/v1/incidents", "/api/v1/drills", "/api/v1/leases", "/api/v1/verdicts",
         "/api/v1/fleet/endpoints", "/api/v1/signals", "/api/v1/experiments", "/api/v1/runbooks",
         "/api/v1/tokens", "/api/v1/instructions", "/api/v1/audit")  # fmt: skip


def next_of(link: str) -> str:
    """Return where a `Link` header leads; empty without one."""
    found = re.fullmatch(r'<([^>]+)>; rel="next"', link)
    return found.group(1) if found else ""


@pytest.mark.parametrize("path", LISTS)
async def test_following_the_links_gives_each_item_once_and_in_the_order_of_one_page(server: Server, path: str) -> None:
    for _ in range(3):  # Rows for the audit log.
        await server.post("/api/v1/heal", {})
    whole = (await server.get(f"{path}?limit=500")).json
    assert whole, path
    seen, onward, pages = [], f"{path}?limit=1", 0
    while onward:
        answer = await server.get(onward)
        assert answer.status == 200
        assert len(answer.json) <= 1
        seen += answer.json
        onward = next_of(answer.headers.get("link", ""))
        pages += 1
        assert pages <= len(whole)
    assert seen == whole


@pytest.mark.parametrize("path", [*LISTS, "/api/v1/alerts"])
async def test_a_page_that_nobody_gave_out_is_a_problem(server: Server, path: str) -> None:
    for after in ("abc", "!!", "%00", "W10", spell_key("nobody"), "x" * 2000):
        answer = await server.get(f"{path}?after={after}")
        assert answer.status in (400, 422), after
        assert answer.is_problem


async def test_a_link_keeps_what_else_was_asked_for(server: Server) -> None:
    first = await server.get("/api/v1/fleet/endpoints?pool=primary&limit=1")
    onward = next_of(first.headers["link"])
    assert "pool=primary" in onward
    assert {one["pool"] for one in (await server.get(onward)).json} == {"primary"}


@given(st.datetimes(timezones=st.just(UTC)), st.text(st.characters(codec="utf-8", exclude_characters="\x00")))
def test_a_mark_is_read_as_it_was_spelled(at: object, name: str) -> None:
    assert read_mark(spell_mark((at, name))) == (at, name)  # type: ignore[arg-type]


@given(st.text(max_size=60))
def test_whatever_is_sent_as_a_mark_is_a_mark_or_wrong_usage(text: str) -> None:
    try:
        read_mark(text)
        read_key(text)
    except UsageError as error:
        assert error.fix  # noqa: PT017 - both ends are right


def test_what_is_added_before_a_page_moves_nothing() -> None:
    older = ["c", "b", "a"]
    page = sliced(older, 1, "", str)
    assert page == ["c", "b"]
    assert sliced(["d", *older], 1, spell_key("c"), str) == ["b", "a"]
    with pytest.raises(UsageError, match="no such page"):
        sliced(older, 1, spell_key("z"), str)
