"""Moving a cluster's traffic by hand gives it what the control plane would: jq really runs, kubectl is stood in for."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from controlplane.degradation.actuator import Pull, route
from controlplane.degradation.actuators.route_documents import ROUTES as KINDS
from controlplane.degradation.actuators.route_documents import planned_rules
from controlplane.degradation.matrix import Level
from controlplane.policy.load import loads
from controlplane.policy.model import Policy
from controlplane.render.artefacts import render
from tests.support.kube import PLURALS, ROUTES
from tests.support.runbook_pages import ByHand, steps

pytestmark = pytest.mark.debian("jq")

PAGE = """
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.0.1:8000"] } }
    standby: { endpoints: { static: ["http://10.0.0.2:8000"] } }
    base:    { endpoints: { static: ["http://10.0.0.3:8000"] } }
  gateway: { kubernetes: { kind: KIND, name: chat, listener: "http://10.0.0.9" } }
"""
KUBECTL = """#!/bin/sh
# Stands in for kubectl: prints the object, and keeps what is applied.
case " $* " in
  *" get "*) cat "$STORE/object.json" ;;
  *" apply "*)
    for last; do :; done
    echo "$*" >> "$STORE/asked"
    if [ "$last" = - ]; then cat > "$STORE/applied.json"; else cp "$last" "$STORE/applied.json"; fi ;;
esac
"""


def page(kind: str) -> tuple[Policy, dict[str, ByHand]]:
    policy = loads(PAGE.replace("KIND", kind), Path("controlplane.yaml")).policy
    text = next(t for p, t in render(policy, (), "controlplane.yaml").items() if p.startswith("runbooks/P0"))
    return policy, {step.title.split(". ", 1)[1]: step for step in steps(text)}


def bash(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, timeout=20, check=False,
        cwd=folder,
        env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "STORE": str(folder), "LISTENER": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", sorted(ROUTES))
def test_what_is_applied_by_hand_is_what_the_control_plane_would_apply(kind: str, tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").write_text(KUBECTL)
    (tmp_path / "bin" / "kubectl").chmod(0o755)
    policy, by_hand = page(kind)
    found = ROUTES[kind]()
    (tmp_path / "object.json").write_text(json.dumps(found))
    row, pools = policy.degradation.rows[Level.P0], {pool: pool for pool in policy.fleet.pools}
    step = by_hand["Move the traffic"]
    bash(step.do, tmp_path)
    applied = json.loads((tmp_path / "applied.json").read_text())
    assert applied["spec"] == {
        KINDS[kind].rules: planned_rules(found, KINDS[kind], pools, route((Pull(row.level, row.do),)))
    }
    assert applied["metadata"] == {"name": "chat", "namespace": "default"}
    assert "--field-manager=controlplane" in (tmp_path / "asked").read_text()
    shown = bash(step.check.splitlines()[0], tmp_path)
    assert '{"name":"primary","weight":100}' in shown
    bash(step.undo, tmp_path)
    undone = json.loads((tmp_path / "applied.json").read_text())
    assert undone["spec"] == {KINDS[kind].rules: found["spec"][KINDS[kind].rules]}
    (tmp_path / "object.json").write_text(json.dumps(found | {"spec": found["spec"] | applied["spec"]}))
    bash(by_hand["Give the traffic back"].do, tmp_path)
    back = json.loads((tmp_path / "applied.json").read_text())
    assert back["spec"] == {KINDS[kind].rules: planned_rules(found, KINDS[kind], pools, route(()))}


@pytest.mark.parametrize("kind", sorted(ROUTES))
def test_the_names_on_the_page_are_the_clusters_own(kind: str) -> None:
    _, by_hand = page(kind)
    assert f"kubectl -n default get {kind} chat" in by_hand["Move the traffic"].do
    assert PLURALS[kind].startswith(kind)
