"""What a person is told to do by hand is about the gateway that the page names."""

from pathlib import Path

import pytest

from controlplane.policy.load import loads
from controlplane.render.artefacts import render

PAGE = """
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.0.1:8000"] } }
    standby: { endpoints: { static: ["http://10.0.0.2:8000"] } }
  gateway: { GATEWAY }
"""
LISTENER = 'listener: "http://10.0.0.9"'


@pytest.mark.parametrize(
    "gateway",
    [
        f"kubernetes: {{ kind: httproute, name: chat, {LISTENER} }}",
        f'webhook: {{ url: "http://10.0.0.8", secret: "env:S", {LISTENER} }}',
        f"dry_run: {{ {LISTENER} }}",
    ],
)
def test_nobody_is_told_to_edit_files_of_an_envoy_that_is_not_there(gateway: str) -> None:
    loaded = loads(PAGE.replace("GATEWAY", gateway), Path("controlplane.yaml"))
    pages = {str(path): text for path, text in render(loaded.policy, (), "controlplane.yaml").items()}
    runbook = next(text for path, text in pages.items() if "P0" in path)
    assert "Ask pool standby" in runbook
    assert "$RDS" not in runbook
    assert "$ADMIN" not in runbook
