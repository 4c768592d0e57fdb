"""What a real Envoy counts of a pool that it reaches, and of one that it has lost."""

from pathlib import Path

import pytest

from controlplane.probes.gateway_counts import COUNTS_PAGE, Counts, read_counts
from controlplane.target.gateway_clusters import Place
from tests.support.envoys import POOLS, Envoy, envoy
from tests.support.processes import ask, free_port, until

pytestmark = pytest.mark.journey


def counts(gateway: Envoy) -> Counts:
    return read_counts(ask(f"{gateway.admin}{COUNTS_PAGE}").body, POOLS)


def test_what_envoy_answers_for_an_endpoint_that_it_cannot_reach_is_no_answer_of_the_pool(tmp_path: Path) -> None:
    with envoy(tmp_path / "gateway") as gateway:
        assert {status for status, _ in gateway.answered(5)} == {200}
        before = counts(gateway)["primary"]
        assert (before.anybody, before.errors) == (before.own, 0)
        assert before.own >= 5
        gateway.places["primary"] = [Place("primary-0", "127.0.0.1", free_port())]
        gateway.write()
        until(lambda: {status for status, _ in gateway.answered(1)} == {503}, what="the pool is lost")
        at = counts(gateway)["primary"]
        assert {status for status, _ in gateway.answered(5)} == {503}
        grown = counts(gateway)["primary"].since(at)
        assert (grown.own, grown.anybody, grown.errors) == (0, 0, 5)
        assert grown.failed > 0
