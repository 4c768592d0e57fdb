"""Rate, errors and duration by route; the path that was asked for is never a label."""

from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from controlplane.telemetry import Requests
from controlplane.web.red import Counted
from tests.unit.web.test_api import DRILL, Server
from tests.unit.web.test_api import server as server  # noqa: PLC0414 - the fixture


async def lines(server: Server, start: str) -> dict[str, float]:
    text = (await server.get("/metrics")).text
    found = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(start))
    return {name: float(value) for name, value in found}


async def test_answers_are_counted_by_the_route_and_not_by_the_path(server: Server) -> None:
    server.told.answer = RuntimeError("boom")
    await server.get(f"/api/v1/drills/{DRILL.id}")
    await server.get("/api/v1/drills/absent")
    await server.get("/api/v1/drills", token="wrong")
    await server.post("/api/v1/drills", {"experiment": "node-kill"})
    await server.get("/a/secret/path")
    await server.send("PROPFIND", "/api/v1/drills")
    found = await lines(server, "controlplane_http_requests_total")
    for route, method, status in (
        ("/api/v1/drills/{drill_id}", "GET", 200), ("/api/v1/drills/{drill_id}", "GET", 404),
        ("/api/v1/drills", "GET", 401), ("/api/v1/drills", "POST", 500), ("(no such path)", "GET", 404),
    ):  # fmt: skip
        name = f'controlplane_http_requests_total{{method="{method}",route="{route}",status="{status}"}}'
        assert found[name] == 1, (name, found)
    assert not any("secret" in name or "absent" in name or "PROPFIND" in name for name in found)
    assert any('method="other"' in name for name in found)
    seconds = await lines(server, "controlplane_http_request_seconds_count")
    assert seconds['controlplane_http_request_seconds_count{route="/api/v1/drills/{drill_id}"}'] == 2


async def test_the_request_that_asks_is_the_one_under_way(server: Server) -> None:
    assert await lines(server, "controlplane_http_requests_in_flight") == {"controlplane_http_requests_in_flight": 1.0}


async def test_in_flight_falls_again_when_a_request_breaks() -> None:
    requests = Requests(CollectorRegistry())

    async def broken(*_: object) -> None:
        assert requests.under_way == 1
        raise ZeroDivisionError

    scope = {"type": "http", "method": "GET", "path": "/"}
    with pytest.raises(ZeroDivisionError):
        await Counted(broken, requests)(scope, cast("Any", None), cast("Any", None))
    assert requests.under_way == 0
