"""A verdict and a rule agree: our quantile is what the installed Prometheus answers on the same data."""

import random
import re
import shutil
import subprocess
from itertools import accumulate
from math import inf
from pathlib import Path

import pytest
import yaml

from controlplane.signals.quantile import histogram_quantile

EDGES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, inf)
HISTOGRAMS = 60


@pytest.mark.debian("prometheus")
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_quantiles_are_those_of_prometheus(q: float, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    chance = random.Random(f"{q}")
    histograms = [[chance.choice([0, 0, 1, chance.randrange(1000)]) for _ in EDGES] for _ in range(HISTOGRAMS)]
    series = [
        {"series": f'x_bucket{{n="{n}",le="{"+Inf" if edge == inf else edge}"}}', "values": str(count)}
        for n, counts in enumerate(histograms)
        for edge, count in zip(EDGES, accumulate(counts), strict=True)
    ]
    ask = {"expr": f"histogram_quantile({q}, x_bucket)", "eval_time": "0m", "exp_samples": []}
    page = {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [ask]}]}
    (tmp_path / "t.yml").write_text(yaml.safe_dump(page), encoding="utf-8")
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "t.yml")], capture_output=True, text=True, timeout=60, check=False
    )
    told = {
        int(n): float(value) for n, value in re.findall(r'\{n=\\?"(\d+)\\?"\} (\S+?)[,\s"]', done.stdout + done.stderr)
    }
    assert len(told) == HISTOGRAMS, done.stdout + done.stderr
    for n, counts in enumerate(histograms):
        ours = histogram_quantile(q, EDGES, counts)
        if ours is None:
            assert told[n] != told[n]  # NaN: no observation
        else:
            assert told[n] == pytest.approx(ours.value, rel=1e-12)
