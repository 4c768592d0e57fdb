"""The standing as tables."""

import io
from typing import Any

from fastapi.encoders import jsonable_encoder
from rich.console import Console

from controlplane.cli.standing import age, standing_table
from controlplane.flows.standing import BudgetStanding, Standing
from controlplane.slo.burn import BudgetWindow, budget
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence
from tests.support import overviews


def drawn(standing: Any) -> str:
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(standing_table(standing))
    return console.export_text()


def quiet() -> Standing:
    return overviews.idle().standing


def with_evidence(*evidence: Evidence) -> Any:
    found = jsonable_encoder(quiet())
    found["pools"][0]["verdict"]["evidence"] = jsonable_encoder(evidence)
    return found


def test_every_known_signal_shows_its_evidence() -> None:
    text = drawn(
        with_evidence(
            Evidence(
                "latency_p99", 0.42, Band.OK, 1200, 0.3, 0.5, "histograms of 2 endpoints", "", 30.0, 0.7, 0.4, 1.25
            ),
            Evidence("gpu_temperature", 71.0, Band.OK, 2, source="2 endpoints", age_s=3.0),
            Evidence("queue_depth", None, Band.UNKNOWN),
        )
    )
    line = next(x for x in text.splitlines() if "latency_p99" in x)
    for part in ("420 ms", "ok", "30s", "1,200", "300 ms .. 500 ms", "400 ms (+1.2)", "0.7s", "histograms of 2"):
        assert part in line, part
    assert "71 °C" in text
    assert "1 more unknown" in text


def test_a_budget_stands_at_the_top_and_says_when_it_burns() -> None:
    window = BudgetWindow(overviews.NOW - overviews.ago(30 * 86_400.0))
    for minute in range(60):
        window.add(minute * 60.0, 80.0, 100.0)
    found = jsonable_encoder(quiet())
    found["budgets"] = jsonable_encoder([BudgetStanding("availability", budget(window, 0.99, 3599.0))])
    text = drawn(found)
    assert "availability 99.000%" in text
    assert "burns 20.0x (page from 14.4x)" in text


def test_a_standing_of_before_is_drawn_too() -> None:
    found = jsonable_encoder(quiet())
    del found["budgets"]
    assert "level" in drawn(found)


def test_eighty_columns_hold_the_numbers() -> None:
    seen = Evidence("inter_token_latency_p99", 0.063, Band.OK, 1830, 0.05, 0.075, "somewhere", "", 30.0, 0.7)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(standing_table(with_evidence(seen), 80))
    line = next(x for x in console.export_text().splitlines() if "inter_token" in x)
    for part in ("inter_token_latency_p99", "63 ms", "ok", "1,830", "50 ms .. 75 ms", "0.7s"):
        assert part in line, line


def test_ages_are_short() -> None:
    assert [age(s) for s in (None, 0.42, 7.0, 30, 119, 120, 7200, 200_000)] == [
        "", "0.4s", "7s", "30s", "119s", "2m", "2h", "2d",
    ]  # fmt: skip
