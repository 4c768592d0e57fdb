"""What a matrix would have done with signals that were recorded, by hand and on a real fleet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level
from controlplane.errors import UsageError
from controlplane.flows.simulate import LONGEST, Simulated, simulate
from controlplane.policy.load import load, loads
from controlplane.policy.model import Policy
from controlplane.signals.recording import ALERT, Point, read_points

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
DATA = Path(__file__).resolve().parents[2] / "data"
REFERENCE = Path(__file__).resolve().parents[3] / "controlplane" / "policy" / "reference.yaml"
PAGE = """\
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.1.1:8000"] } }
    base: { endpoints: { static: ["http://10.0.3.1:8000"] } }
degradation:
  mode: %s
  P2:
    when: { any: [ { latency_p99: { above: 2s, for: 5s } }, { alert: Slow } ] }
    do: [ { use_pool: { pool: base, share: 50%% } } ]
    release: { steps: [50%%, 100%%], hold: 5s }
"""


def page(mode: str = "auto") -> Policy:
    return loads(PAGE % mode, Path("page.yaml")).policy


def recorded(*latency: tuple[float, float | None], until_s: float) -> list[Point]:
    """Return latencies from given seconds on, each written every second, beside a primary that is up."""
    points = []
    for second in range(int(until_s) + 1):
        at = T0 + timedelta(seconds=second)
        points.append(Point(at, "primary", "availability", 1.0, 5))
        value = next((v for since, v in reversed(latency) if since <= second), None)
        points.append(Point(at, "primary", "latency_p99", value, 100))
    return points


def moves(simulated: Simulated) -> list[tuple[float, Phase]]:
    return [((change.at - simulated.since).total_seconds(), change.after) for change in simulated.changes]


def test_a_breach_engages_after_its_dwell_and_is_given_back_by_steps() -> None:
    simulated = simulate(page(), recorded((0, 0.2), (10, 3.0), (30, 0.2), until_s=60))
    assert moves(simulated) == [
        (10.0, Phase.PENDING), (15.0, Phase.ENGAGING), (15.5, Phase.ENGAGED), (40.0, Phase.RELEASING),
        (46.0, Phase.IDLE),
    ]  # fmt: skip
    assert simulated.level_s[Level.P2] == pytest.approx(30.5)
    assert (simulated.switches, simulated.flaps, simulated.unknown) == (1, (), ())
    assert simulated.changes[1].because == ("latency_p99 is 3 s (at or above 2 s)",)


def test_a_matrix_that_goes_back_and_forth_is_told_so() -> None:
    simulated = simulate(page(), recorded((0, 3.0), (20, 0.2), (40, 3.0), (60, 0.2), until_s=90))
    assert simulated.switches == 2
    assert len(simulated.flaps) == 1
    assert "P2 engaged again" in simulated.flaps[0]


def test_a_release_that_is_taken_back_is_a_flap() -> None:
    simulated = simulate(page(), recorded((0, 3.0), (20, 0.2), (31, 3.0), until_s=45))
    assert [flap for flap in simulated.flaps if "taken back" in flap]


def test_a_step_that_goes_worse_than_the_other_pool_is_shown_as_gone_back_and_is_no_switch() -> None:
    points = recorded((0, 3.0), (20, 0.2), until_s=60)
    for second in range(61):
        at = T0 + timedelta(seconds=second)
        points.append(Point(at, "primary", "error_rate", 0.02 if 30 <= second < 40 else 0.0, 1000))
        points.append(Point(at, "base", "error_rate", 0.0, 1000))
    simulated = simulate(page(), sorted(points, key=lambda p: p.at))
    assert simulated.switches == 1
    (flap,) = simulated.flaps
    assert flap.startswith("P2 went one step back after 30.5 s: ")
    assert "the primary: 2.00% errors of 1000 answers" in flap
    assert [phase for _, phase in moves(simulated)][-4:] == [
        Phase.RELEASING, Phase.ENGAGED, Phase.RELEASING, Phase.IDLE,
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["observe", "approve"])
def test_a_page_that_is_not_trusted_yet_is_simulated_as_if_it_were(mode: str) -> None:
    assert moves(simulate(page(mode), recorded((0, 3.0), until_s=20))) == moves(
        simulate(page(), recorded((0, 3.0), until_s=20))
    )


def test_unknown_neither_trips_nor_releases() -> None:
    assert simulate(page(), recorded((0, None), until_s=60)).changes == ()
    simulated = simulate(page(), recorded((0, 3.0), (20, None), until_s=60))
    assert moves(simulated)[-1][1] is Phase.ENGAGED


def test_a_value_that_was_not_recorded_again_is_unknown() -> None:
    points = [*recorded((0, 3.0), until_s=0), Point(T0 + timedelta(seconds=30), "primary", "availability", 1.0, 5)]
    assert Phase.ENGAGING not in [phase for _, phase in moves(simulate(page(), points))]


def test_alerts_are_recorded_like_signals() -> None:
    points = recorded((0, 0.2), until_s=30)
    points += [Point(T0 + timedelta(seconds=at), ALERT, "Slow", value) for at, value in ((5, 1.0), (12, 0.0))]
    simulated = simulate(page(), sorted(points, key=lambda p: p.at))
    assert moves(simulated)[:2] == [(5.0, Phase.ENGAGING), (5.5, Phase.ENGAGED)]
    assert moves(simulated)[-1][1] is Phase.IDLE


def test_what_rows_look_at_and_nobody_recorded_is_named() -> None:
    points = [p for p in recorded((0, 0.2), until_s=3) if p.signal != "latency_p99"]
    assert simulate(page(), points).unknown == ("latency_p99",)


def test_an_absurdly_long_recording_is_refused() -> None:
    ends = [T0, T0 + LONGEST + timedelta(seconds=1)]
    with pytest.raises(UsageError, match="too long"):
        simulate(page(), [Point(at, "primary", "availability", 1.0) for at in ends])


def replay(name: str) -> Simulated:
    path = DATA / f"{name}.jsonl"
    return simulate(load(REFERENCE).policy, read_points(path.read_text(encoding="utf-8"), path.name))


def test_a_recorded_overload_replays_as_it_went() -> None:
    """Recorded on the reference fleet: 1,200 requests a second for 25 s, far more than it bears."""
    simulated = replay("overload")
    engaged = [(c.row, c.because) for c in simulated.changes if c.after is Phase.ENGAGING]
    assert [row for row, _ in engaged] == [Level.P0, Level.P2]
    assert engaged[0][1][0].startswith("error_rate is ")
    assert engaged[1][1][0].startswith("inter_token_latency_p99 is in breach")
    assert simulated.flaps == ()


def test_a_recorded_death_of_the_primary_pool_replays_as_it_went() -> None:
    """Recorded on the reference fleet: both primaries killed for 6 s under 50 requests a second."""
    simulated = replay("killed-primary")
    assert [c.after for c in simulated.changes if c.row is Level.P0] == [
        Phase.ENGAGING, Phase.ENGAGED, Phase.RELEASING, Phase.IDLE,
    ]  # fmt: skip
    assert simulated.changes[0].because == ("endpoints_down is 100% (at or above 100%)",)
    assert (simulated.switches, simulated.flaps, simulated.told) == (1, (), ())
    assert {c.row for c in simulated.changes} == {Level.P0}
