"""Locust drives the fleet with the file that we emit."""

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from controlplane.target.locustfile import write_locustfile
from controlplane.target.spec import LoadSpec
from tests.support.fleets import fleet

pytestmark = [
    pytest.mark.journey,
    pytest.mark.skipif(find_spec("locust") is None, reason="locust is not installed (pip install locust)"),
]


@pytest.mark.parametrize("streamed", [False, True])
def test_locust_runs_the_emitted_file_and_every_answer_is_whole(tmp_path: Path, *, streamed: bool) -> None:
    file, figures = tmp_path / "locustfile.py", tmp_path / "figures"
    with fleet(tmp_path / "run", pools='{"primary": PoolSpec(1, "base")}') as (_, ready):
        spec = LoadSpec(ready["gateway"], tmp_path / "x", rate_per_s=20.0, max_tokens=4, stream=streamed, chat=streamed)
        users = write_locustfile(spec, file)
        command = [
            sys.executable, "-m", "locust", "-f", str(file), "--headless", "--users", str(users), "--spawn-rate",
            str(users), "--run-time", "12s", "--csv", str(figures), "--only-summary", "--skip-log-setup",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=80)
    assert done.returncode == 0, done.stdout + done.stderr
    with figures.with_name("figures_stats.csv").open() as lines:
        rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(lines)}
    total = rows["POST", "/v1/chat/completions" if streamed else "/v1/completions"]
    # Twenty a second; Locust writes its figures once a second, and not once more at the end.
    assert 100 <= int(total["Request Count"]) <= 360
    assert int(total["Failure Count"]) == 0
    assert (("TTFT", "/v1/chat/completions") in rows) == streamed
