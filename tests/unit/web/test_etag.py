"""What has not changed is not sent again; what the console shows is kept by nobody."""

from dataclasses import dataclass

import aiohttp
import pytest

from controlplane.web.etag import matches
from tests.unit.web.test_api import TOKEN, Server
from tests.unit.web.test_api import server as server  # noqa: PLC0414 - the fixture


@dataclass(frozen=True, slots=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes


async def get(server: Server, path: str, held: str = "") -> Got:
    headers = {"authorization": f"Bearer {TOKEN}"} | ({"if-none-match": held} if held else {})
    async with server.session.get(server.url + path, headers=headers) as answer:
        return Got(answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read())


@pytest.mark.parametrize("path", ["/api/v1/drills?limit=1", "/api/v1/standing", "/api/v1/runbooks/alerts"])
async def test_an_answer_that_is_held_is_not_sent_again(server: Server, path: str) -> None:
    first = await get(server, path)
    again = await get(server, path, f'"other", W/{first.headers["etag"]}')
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == "private, no-cache"
    assert again.headers.get("link") == first.headers.get("link")
    assert "content-security-policy" in again.headers
    assert (await get(server, path, '"other"')).body == first.body


async def test_the_tag_follows_the_answer(server: Server) -> None:
    tags = {(await get(server, f"/api/v1/{path}")).headers["etag"] for path in ("drills", "receipts", "halt")}
    assert len(tags) == 3


async def test_only_what_is_read_from_the_api_and_is_well_has_a_tag(server: Server) -> None:
    for path in ("/", "/metrics", "/healthz", "/api/v1/drills/absent", "/openapi.json"):
        assert "etag" not in (await get(server, path)).headers
        assert (await get(server, path)).headers["cache-control"] == "no-store"
    for path in ("/api/v1/tokens", "/api/v1/audit"):
        assert (await get(server, path)).headers["cache-control"] == "no-store"
    assert "etag" not in (await server.post("/api/v1/heal", {})).headers


async def test_a_held_answer_opens_no_door(server: Server) -> None:
    tag = (await get(server, "/api/v1/drills")).headers["etag"]
    held = {"if-none-match": tag}
    async with aiohttp.ClientSession() as stranger, stranger.get(f"{server.url}/api/v1/drills", headers=held) as answer:
        assert answer.status == 401


def test_tags_are_compared_as_rfc_9110_says() -> None:
    assert matches("*", '"a"')
    assert matches('W/"a"', '"a"')
    assert matches('"b" , "a"', '"a"')
    assert not matches('"ab"', '"a"')
    assert not matches("", '"a"')
