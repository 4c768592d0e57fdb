"""What each route needs: the one table that `web.guard` asks, for the API, the console and the pages for machines.

A test walks the application's own routes and fails for one that is not here; at run time such a route opens to
admins only. Reading needs a viewer. The exceptions: `/healthz` and `/readyz` must answer an orchestrator's probes,
which carry no secret, and say little to strangers; `/metrics` and `/sd` follow `serve --scrape`; what the login page
is made of is open to whoever may log in.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.routing import BaseRoute, Match

from controlplane.security.roles import Need

NEEDS: Mapping[tuple[str, str], Need] = {
    ("GET", "/healthz"): Need.ANYONE,
    ("GET", "/readyz"): Need.ANYONE,
    ("GET", "/metrics"): Need.SCRAPER,
    ("GET", "/sd"): Need.SCRAPER,
    ("GET", "/static"): Need.ANYONE,
    ("GET", "/login"): Need.ANYONE,
    ("POST", "/login"): Need.ANYONE,
    ("POST", "/logout"): Need.ANYONE,
    ("GET", "/oidc/start"): Need.ANYONE,
    ("GET", "/oidc/callback"): Need.ANYONE,
    ("POST", "/hooks/alertmanager"): Need.WEBHOOK,
    ("GET", "/openapi.json"): Need.VIEWER,
    # The console.
    ("GET", "/"): Need.VIEWER,
    ("GET", "/fragment"): Need.VIEWER,
    ("GET", "/events"): Need.VIEWER,
    ("GET", "/drills/{drill_id}"): Need.VIEWER,
    ("GET", "/runbooks"): Need.VIEWER,
    ("GET", "/runbooks/{name}"): Need.VIEWER,
    ("GET", "/runbooks/{name}/fragment"): Need.VIEWER,
    ("GET", "/incidents"): Need.VIEWER,
    ("GET", "/incidents/fragment"): Need.VIEWER,
    ("GET", "/incidents/{incident_id}"): Need.VIEWER,
    ("GET", "/incidents/{incident_id}/report"): Need.VIEWER,
    ("GET", "/incidents/{incident_id}/fragment"): Need.VIEWER,
    ("GET", "/fleet"): Need.VIEWER,
    ("GET", "/fleet/fragment"): Need.VIEWER,
    ("GET", "/pools/{pool}"): Need.VIEWER,
    ("GET", "/pools/{pool}/fragment"): Need.VIEWER,
    ("GET", "/matrix"): Need.VIEWER,
    ("GET", "/matrix/fragment"): Need.VIEWER,
    ("GET", "/matrix/{level}/{lever}"): Need.VIEWER,
    ("POST", "/matrix/{level}/{lever}"): Need.OPERATOR,
    ("GET", "/drills"): Need.VIEWER,
    ("GET", "/drills/fragment"): Need.VIEWER,
    ("GET", "/drills/halt"): Need.VIEWER,
    ("POST", "/drills/halt"): Need.OPERATOR,
    ("GET", "/drills/resume"): Need.VIEWER,
    ("POST", "/drills/resume"): Need.OPERATOR,
    ("GET", "/drills/run/{experiment}"): Need.VIEWER,
    ("POST", "/drills/run/{experiment}"): Need.OPERATOR,
    ("GET", "/drills/{drill_id}/live"): Need.VIEWER,
    ("GET", "/drills/{drill_id}/live/fragment"): Need.VIEWER,
    ("GET", "/drills/{drill_id}/abort"): Need.VIEWER,
    ("POST", "/drills/{drill_id}/abort"): Need.OPERATOR,
    ("GET", "/runbooks/fragment"): Need.VIEWER,
    ("GET", "/audit"): Need.ADMIN,
    ("GET", "/audit/fragment"): Need.ADMIN,
    # Reading.
    ("GET", "/api/v1/standing"): Need.VIEWER,
    ("GET", "/api/v1/fleet"): Need.VIEWER,
    ("GET", "/api/v1/fleet/endpoints"): Need.VIEWER,
    ("GET", "/api/v1/verdicts"): Need.VIEWER,
    ("GET", "/api/v1/signals"): Need.VIEWER,
    ("GET", "/api/v1/signals/{signal}/history"): Need.VIEWER,
    ("GET", "/api/v1/matrix"): Need.VIEWER,
    ("GET", "/api/v1/receipts"): Need.VIEWER,
    ("GET", "/api/v1/receipts/{receipt_id}"): Need.VIEWER,
    ("GET", "/api/v1/incidents"): Need.VIEWER,
    ("GET", "/api/v1/incidents/statistics"): Need.VIEWER,
    ("GET", "/api/v1/incidents/{incident_id}"): Need.VIEWER,
    ("GET", "/api/v1/incidents/{incident_id}/report"): Need.VIEWER,
    ("GET", "/api/v1/alerts"): Need.VIEWER,
    ("GET", "/api/v1/runbooks"): Need.VIEWER,
    ("GET", "/api/v1/runbooks/{name}"): Need.VIEWER,
    ("GET", "/api/v1/instructions"): Need.VIEWER,
    ("GET", "/api/v1/recording"): Need.VIEWER,
    ("GET", "/api/v1/machine"): Need.VIEWER,
    ("GET", "/api/v1/rollouts/newest"): Need.VIEWER,
    ("GET", "/api/v1/drills"): Need.VIEWER,
    ("GET", "/api/v1/drills/{drill_id}"): Need.VIEWER,
    ("GET", "/api/v1/drills/{drill_id}/events"): Need.VIEWER,
    ("GET", "/api/v1/drills/{drill_id}/report"): Need.VIEWER,
    ("GET", "/api/v1/experiments"): Need.VIEWER,
    ("GET", "/api/v1/experiments/{experiment}"): Need.VIEWER,
    ("GET", "/api/v1/experiments/{experiment}/preview"): Need.VIEWER,
    ("GET", "/api/v1/halt"): Need.VIEWER,
    ("GET", "/api/v1/leases"): Need.VIEWER,
    ("GET", "/api/v1/whoami"): Need.VIEWER,
    # Levers and drills.
    ("POST", "/api/v1/pins/{level}"): Need.OPERATOR,
    ("POST", "/api/v1/pins/{level}/end"): Need.OPERATOR,
    ("POST", "/api/v1/brake"): Need.OPERATOR,
    ("POST", "/api/v1/brake/release"): Need.OPERATOR,
    ("POST", "/api/v1/rows/{level}/approve"): Need.OPERATOR,
    ("POST", "/api/v1/rows/{level}/refuse"): Need.OPERATOR,
    ("POST", "/api/v1/rows/{level}/release"): Need.OPERATOR,
    ("POST", "/api/v1/rollouts"): Need.OPERATOR,
    ("POST", "/api/v1/rollouts/abort"): Need.OPERATOR,
    ("POST", "/api/v1/drills"): Need.OPERATOR,
    ("POST", "/api/v1/drills/{drill_id}/faults"): Need.OPERATOR,
    ("POST", "/api/v1/drills/{drill_id}/heal"): Need.OPERATOR,
    ("POST", "/api/v1/drills/{drill_id}/abort"): Need.OPERATOR,
    ("POST", "/api/v1/halt"): Need.OPERATOR,
    ("POST", "/api/v1/resume"): Need.OPERATOR,
    ("POST", "/api/v1/heal"): Need.OPERATOR,
    # Incidents.
    ("POST", "/api/v1/incidents/{incident_id}/acknowledge"): Need.OPERATOR,
    ("POST", "/api/v1/incidents/{incident_id}/assign"): Need.OPERATOR,
    ("POST", "/api/v1/incidents/{incident_id}/note"): Need.OPERATOR,
    ("POST", "/api/v1/incidents/{incident_id}/resolve"): Need.OPERATOR,
    ("POST", "/api/v1/incidents/{incident_id}/reopen"): Need.OPERATOR,
    ("POST", "/incidents/{incident_id}/{verb}"): Need.OPERATOR,
    # Who may do all this.
    ("GET", "/api/v1/tokens"): Need.ADMIN,
    ("POST", "/api/v1/tokens"): Need.ADMIN,
    ("POST", "/api/v1/tokens/{token_id}/revoke"): Need.ADMIN,
    ("GET", "/api/v1/audit"): Need.ADMIN,
    ("GET", "/api/v1/audit/check"): Need.ADMIN,
}
"""(method, path as the route names it) -> need."""

UNKNOWN_PATH = "(no such path)"


def asked(routes: Iterable[BaseRoute], scope: Mapping[str, Any]) -> tuple[str, Need]:
    """Return the path a request asks for, as its route names it, and what it needs.

    A path that is no route, or not by this method, needs a viewer: strangers do not learn which paths there are. A
    route that the table does not know needs an admin.
    """
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    nearly = UNKNOWN_PATH, Need.VIEWER
    for route in routes:
        found, _ = route.matches(dict(scope))
        path = spelled(route)
        if found is Match.FULL:  # The one the application takes: the first that matches path and method.
            return path, NEEDS.get((method, path), Need.ADMIN)
        if found is Match.PARTIAL and nearly[0] == UNKNOWN_PATH:  # The path without the method: 405.
            nearly = path, NEEDS.get((method, path), Need.VIEWER)
    return nearly


def spelled(route: BaseRoute) -> str:
    """Return a route's path as OpenAPI spells it: without the kind of its parameters."""
    path: str = getattr(route, "path", UNKNOWN_PATH)
    return path.replace(":path}", "}")
