"""Live pages against the table of their engine."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from controlplane.cli import app
from controlplane.probes.contract import inspect
from controlplane.signals.engines import SGLANG, VLLM
from tests.support import engine_pages

PAGES = Path(__file__).parents[2] / "pages"


@pytest.mark.parametrize("path", sorted(PAGES.glob("vllm-*.prom")), ids=lambda path: path.stem)
def test_a_real_vllm_keeps_the_contract(path: Path) -> None:
    found = inspect(path.read_bytes(), None)
    assert (found.engine, found.lacking, found.problems) == ("vllm", (), ())
    assert {"latency_p99", "ttft_p99", "error_rate", "token_progress", "preemptions_rate"} <= set(found.told)


@pytest.mark.parametrize(
    "page", [engine_pages.SGLANG, engine_pages.TGI, engine_pages.LLAMACPP, engine_pages.RAY], ids=lambda p: p[:12]
)
def test_other_engines_are_held_to_what_they_can_tell(page: bytes) -> None:
    assert inspect(page, None).problems == ()


def test_old_names_are_pointed_out_with_what_took_their_place() -> None:
    found = inspect(engine_pages.OLD_VLLM, None)
    assert found.old is not None
    assert found.old["vllm:gpu_cache_usage_perc"] == "vllm:kv_cache_usage_perc"
    assert found.old["vllm:num_requests_swapped"] == ""
    assert "kv_cache_utilization" in found.told


def test_a_name_that_is_not_exposed_makes_its_signal_unknown_and_is_a_problem() -> None:
    page = b"\n".join(x for x in engine_pages.TGI.splitlines() if not x.startswith(b"tgi_queue_size")) + b"\n"
    found = inspect(page, None)
    assert found.lacking == ("queue_depth",)
    assert found.problems == ("queue_depth is unknown: tgi_queue_size is not on the page",)


def test_a_page_of_another_engine_than_the_policys_is_a_problem() -> None:
    assert "the policy says it is sglang, and it looks like vllm" in inspect(engine_pages.OLD_VLLM, SGLANG).problems


def test_pages_that_are_none_are_problems() -> None:
    assert "no engine that we know" in inspect(b"go_goroutines 1\n", None).problems[0]
    assert "cannot be read" in inspect(b"vllm:num_requests_running many\n", VLLM).problems[0]


def test_the_command_fails_when_a_page_breaks_the_contract(tmp_path: Path) -> None:
    good, bad = str(PAGES / "vllm-0.32.0-cpu.prom"), tmp_path / "bad.prom"
    bad.write_bytes(engine_pages.OLD_VLLM)
    nowhere = str(tmp_path / "none.yaml")
    fine = CliRunner().invoke(app, ["check", nowhere, "--live", "--at", good])
    assert (fine.exit_code, fine.stdout.splitlines()[-1]) == (0, "1 pages, 0 with problems")
    wrong = CliRunner().invoke(app, ["check", nowhere, "--live", "--at", str(bad), "--at", str(tmp_path / "gone")])
    assert wrong.exit_code == 1
    assert "2 pages, 2 with problems" in wrong.stdout
