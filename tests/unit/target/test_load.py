"""The load generator's arithmetic: arrivals, prompts, percentiles and windows."""

import json
import math
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from controlplane.target.errors import TargetError
from controlplane.target.load import Record, arrivals, run_load
from controlplane.target.prompts import LENGTHS, Prompts, draw_length
from controlplane.target.report import percentile, summarise, write_summary
from controlplane.target.spec import LoadSpec

SPEC = LoadSpec("http://127.0.0.1:1", Path("unused"), rate_per_s=100.0, duration_s=50.0)


def test_poisson_arrivals_keep_their_rate_and_repeat_with_their_seed() -> None:
    first = list(arrivals(SPEC, random.Random(1)))
    assert first == list(arrivals(SPEC, random.Random(1)))
    assert first == sorted(first)
    assert len(first) == pytest.approx(5000, rel=0.05)


def test_constant_arrivals_are_evenly_spaced() -> None:
    spec = LoadSpec("", Path("unused"), rate_per_s=10.0, arrivals="constant")
    assert list(islice(arrivals(spec, random.Random(1)), 4)) == pytest.approx([0.0, 0.1, 0.2, 0.3])


@pytest.mark.parametrize("kind", LENGTHS)
def test_lengths_stay_within_their_bounds(kind: str) -> None:
    rng = random.Random(3)
    lengths = [draw_length(kind, 16, 96, rng) for _ in range(500)]
    assert min(lengths) >= 16
    assert max(lengths) <= 96
    assert max(lengths) > 80


def test_a_stock_of_prompts_has_favourites_and_repeats_with_its_seed() -> None:
    drawn = [Prompts("uniform", 40, 60, 20, seed).draw() for seed in (5, 5)]
    assert drawn[0] == drawn[1]
    prompts = Prompts("uniform", 40, 60, 20, 1)
    counts = Counter(prompts.draw() for _ in range(2000))
    assert len(counts) == 20
    assert counts.most_common(1)[0][1] > 5 * min(counts.values())
    assert all(40 <= len(text) <= 60 for text in counts)


def test_a_summary_is_written_with_exact_percentiles_by_who_answered(tmp_path: Path) -> None:
    records = [
        Record(0.0, 0.0, 0.0, n / 1000, 200, f"primary-{n % 2}", "none", None, n / 2000 if n % 2 else None)
        for n in range(1, 101)
    ]
    write_summary(tmp_path / "x.json", records)
    found = json.loads((tmp_path / "x.json").read_text())
    assert list(found) == ["all", "primary-0", "primary-1"]
    assert (found["all"]["requests"], found["all"]["latency_s"]["p99"], found["all"]["latency_s"]["max"]) == (
        100,
        0.099,
        0.1,
    )
    assert found["primary-1"]["ttft_s"]["max"] == 0.0495
    assert "ttft_s" not in found["primary-0"]


def test_percentiles_are_nearest_rank() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert math.isnan(percentile([], 0.5))


def test_windows_split_a_record_by_intended_time(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    line = {"sent": 0, "done": 0, "served_by": "primary-0", "level": "none", "error": None}
    rows = [{"intended": at, "latency_s": at / 10, "status": 200 if at < 5 else 0, **line} for at in range(10)]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"intended": 1')
    found = summarise(path, {"before": (0, 5), "after": (5, 10), "never": (20, 30)})
    assert (found["before"].requests, found["before"].failed, found["before"].success_ratio) == (5, 0, 1.0)
    assert (found["after"].requests, found["after"].success_ratio) == (5, 0.0)
    assert found["never"].requests == 0


def test_settings_without_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="rate"):
        run_load(LoadSpec("http://127.0.0.1:1", tmp_path / "x", rate_per_s=0.0))
    with pytest.raises(TargetError, match="lengths"):
        run_load(LoadSpec("http://127.0.0.1:1", tmp_path / "x", lengths="odd"))
    with pytest.raises(TargetError, match="arrivals"):
        run_load(LoadSpec("http://127.0.0.1:1", tmp_path / "x", arrivals="bursts"))
