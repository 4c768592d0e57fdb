"""The API keeps what its description promises: schemathesis sends what the description allows, and what it does not.

The application stands on made-up ports, so that what destroys destroys nothing; everything in front of it is real.
"""

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from controlplane.security.limits import Limiter
from controlplane.web.app import build_app
from tests.support import overviews
from tests.support.doors import FILE_TOKEN, Doors
from tests.unit.web.test_api import DRILL, Told, ports

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]

EXAMPLES = int(os.environ.get("API_EXAMPLES", "12"))
"""For each operation; set more to search longer."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

ADMIN = {"Authorization": f"Bearer {FILE_TOKEN}"}
told = Told(doors=Doors(writes=Limiter(per_s=1e9, burst=10**9)))
app = build_app(ports(told))
schema = schemathesis.openapi.from_dict(app.openapi())
schema.app = app


KNOWN = {
    "drill_id": DRILL.id, "experiment": "node-kill", "signal": "latency_p99", "name": "alerts",
    "receipt_id": overviews.failover().receipts[0].id, "incident_id": overviews.failover().incidents[0].incident.id,
}  # fmt: skip
"""What is there to be found; made-up names hardly ever are."""


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_it_and_every_answer_is_as_described(case: Case[Any]) -> None:
    case.call_and_validate(checks=CHECKS, headers=ADMIN)
    known = {name: value for name, value in KNOWN.items() if name in case.path_parameters}
    if known:
        case.path_parameters = {**case.path_parameters, **known}
        answer = case.call_and_validate(checks=CHECKS, headers=ADMIN)
        assert case.operation.method != "get" or answer.status_code != 404, "what is there is found"
