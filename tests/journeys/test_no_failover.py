"""Behind a gateway that fails over to nobody, a pool that falls silent costs users a second, and not an outage."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlplane.target import netns
from tests.support.fleets import fleet
from tests.support.processes import Load, Plane

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="network namespaces need root on Linux"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nftables (Debian: nftables)"),
]

POOLS = '{"primary": PoolSpec(2, "base"), "standby": PoolSpec(1, "base")}'
PAGE = """
service: chat
fleet:
  engine: reference
  pools:
    primary: {{ endpoints: {{ file: "{run}/sd/primary.json" }} }}
    standby: {{ endpoints: {{ file: "{run}/sd/standby.json" }} }}
  gateway:
    envoy: {{ xds_dir: "{run}/gateway/xds", admin: "file:{run}/gateway/admin", listener: "file:{run}/gateway/listener" }}
probes:
  - http: {{ every: 500ms }}
  - inference: {{ every: 1s }}
  - metrics: {{ every: 1s }}
degradation:
  P0: {{ release: {{ hold: 200ms }} }}
"""  # noqa: E501
SILENCE = """
table inet silence {
  chain input { type filter hook input priority 0; policy drop; }
  chain output { type filter hook output priority 0; policy drop; }
}
"""


def nft(namespace: str, rules: str) -> None:
    line = ["ip", "netns", "exec", namespace, "nft", "-f", "-"]
    subprocess.run(line, input=rules, text=True, capture_output=True, check=True)


def namespaces(run_dir: Path) -> list[str]:
    """Return the namespaces of the primary pool of a fleet."""
    made = (run_dir / "netns.json").read_text(encoding="utf-8")
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in listed if name.startswith(netns.PREFIX) and "-primary-" in name and name in made]


def test_errors_that_the_gateway_makes_of_a_silent_pool_do_not_vouch_for_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    page = tmp_path / "plane" / "controlplane.yaml"
    page.parent.mkdir()
    page.write_text(PAGE.format(run=run), encoding="utf-8")
    with fleet(run, pools=POOLS, netns="True") as (_, ready), Plane(page) as plane:
        plane.until_ready()
        with Load(ready["gateway"], tmp_path / "load.jsonl", 30.0) as load:
            load.until(lambda: len(load.requests()) > 60, "requests are served")
            cut = time.time()
            for namespace in namespaces(run):
                nft(namespace, SILENCE)
            plane.until_level("P0")
            moved = time.time()
            load.until(lambda: any(request.status != 200 for request in load.requests()), "users have felt it")
            time.sleep(1.0)
            for namespace in namespaces(run):
                nft(namespace, "delete table inet silence")
            plane.until_level("none", 60.0)
    failed = [request.intended for request in load.requests() if request.status != 200]
    assert failed, "users have felt it"
    assert cut - 1.0 < min(failed)
    assert max(failed) < moved, "nobody who asked after the switch was failed"
