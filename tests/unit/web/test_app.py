"""What the API answers, where a value is one that JSON has no word for."""

import json
from dataclasses import replace
from typing import Any, cast

from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from controlplane.flows.standing import Standing
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence
from controlplane.telemetry import Requests
from controlplane.web.app import WebPorts, build_app
from controlplane.web.changes import Changes
from controlplane.web.page import Role
from tests.support import consoles, incident_pages, overviews
from tests.support.doors import Doors


def ports(standing: Standing) -> WebPorts:
    nothing = cast("Any", None)
    guard, admin = Doors().ports()
    return WebPorts(
        standing=lambda: standing, overview=nothing, receipts=nothing, receipt=nothing,
        drills=nothing, drill=nothing, leases=nothing, desk=nothing, events=nothing, report=nothing, halt=nothing,
        inject=nothing, heal_drill=nothing, heal_all=nothing, not_ready=lambda: (), in_charge=lambda: True,
        role=lambda: Role("leader", ""),
        incident_pages=incident_pages.ports(overviews.idle()),
        lever=nothing, start_rollout=nothing, abort_rollout=nothing, newest_rollout=nothing,
        signals=nothing, experiments=nothing, metrics_path="/metrics", registry=CollectorRegistry(),
        requests=Requests(CollectorRegistry()), changes=Changes(), alerts=nothing, guard=guard, admin=admin,
        console=consoles.ports(overviews.idle()),
    )  # fmt: skip


async def test_a_p99_beyond_the_last_bucket_does_not_break_the_api() -> None:
    standing = overviews.idle().standing
    pool = standing.pools[0]
    beyond = Evidence("latency_p99", 60.0, Band.BREACH, 900, 60.0, float("inf"))
    verdict = replace(pool.verdict, evidence=(beyond,))
    standing = replace(standing, pools=(replace(pool, verdict=verdict), *standing.pools[1:]))
    routes = build_app(ports(standing)).routes
    route = next(r for r in routes if isinstance(r, APIRoute) and r.path == "/api/v1/standing")
    answer = await route.endpoint()
    seen = json.loads(bytes(answer.body))["pools"][0]["verdict"]["evidence"][0]
    assert (seen["value"], seen["low"], seen["high"]) == (60.0, 60.0, None)
