"""A version is rolled out from the command line on a real fleet, and taken back; users notice nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Fleet, Load, Plane, ask, controlplane

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("rollout") / "run") as running:
        yield running


@pytest.fixture
def plane(fleet: Fleet, tmp_path: Path) -> Iterator[Plane]:
    with Plane(fleet.page, state=tmp_path / "state") as running:
        running.until_ready()
        yield running


def served_by(fleet: Fleet) -> str:
    body = {"prompt": "ping", "max_tokens": 1}
    return ask(f"{fleet.gateway}/v1/completions", "POST", body).headers["x-served-by"]


def test_a_version_that_nobody_asks_anything_is_not_trusted(fleet: Fleet, plane: Plane) -> None:
    done = controlplane("rollout", "reference", "--to", "base", "--hold", "400ms", "--state-dir", plane.state)
    assert done.status == 1, done.err
    assert "10% to base" in done.out
    assert "nothing is known of base" in done.out
    (receipt,) = plane.get("/api/v1/receipts")
    assert (receipt["state"], receipt["level"], receipt["action"]) == ("reverted", "none", "rollout to base")
    assert plane.standing()["level"] == "none"
    assert served_by(fleet).startswith("primary")


def test_a_rollout_under_load_ends_with_a_verdict_and_abort_gives_the_traffic_back(
    fleet: Fleet, plane: Plane, tmp_path: Path
) -> None:
    with Load(fleet.gateway, tmp_path / "requests.jsonl", 40) as load:
        load.until(lambda: len(load.requests()) > 40, "the load is steady")
        line = ("--to", "base", "--steps", "50%,100%", "--hold", "4s", "--state-dir", plane.state)
        done = controlplane("rollout", "reference", *line)
        assert "50% to base" in done.out
        newest = plane.get("/api/v1/rollouts/newest")
        if done.status == 0:  # On a busy machine either pool may be the slower one.
            assert newest["state"] == "verified"
            assert served_by(fleet) == "base-0"
            back = controlplane("rollout", "abort", "--state-dir", plane.state)
            assert back.status == 0, back.err
            assert "called off by" in back.out
        newest = plane.get("/api/v1/rollouts/newest")
        assert newest["state"] == "reverted"
        assert served_by(fleet).startswith("primary")
    assert {r.served_by for r in load.requests()} >= {"base-0"}
    assert [r for r in load.requests() if r.status != 200 or r.error] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("other", "--to", "base"), "in charge of reference"),
        (("reference", "--to", "nowhere"), "has no endpoints"),
        (("reference", "--to", "primary"), "primary serves already"),
        (("reference", "--to", "base", "--steps", "50%"), "must rise to 100%"),
        (("reference", "--to", "base", "--steps", "much"), "expected"),
        (("reference",), "no pool is named"),
        (("abort",), "no rollout is under way"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused_with_the_reason(plane: Plane, line: tuple[str, ...], said: str) -> None:
    done = controlplane("rollout", *line, "--state-dir", plane.state)
    assert done.status in (2, 3)
    assert said in done.err
    assert "Traceback" not in done.err
    assert plane.get("/api/v1/receipts") == []
