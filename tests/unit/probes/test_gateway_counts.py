"""What is read of Envoy's counters."""

import json

import pytest

from controlplane.probes.gateway_counts import Count, read_counts


def page(stats: dict[str, int]) -> bytes:
    return json.dumps({"stats": [{"name": name, "value": value} for name, value in stats.items()]}).encode()


def test_answers_count_for_the_pool_that_was_asked_and_for_itself_where_it_gave_them() -> None:
    stats = {
        "cluster.primary.zone.gateway.primary.upstream_rq_2xx": 10,
        "cluster.primary.zone.gateway.primary.upstream_rq_5xx": 1,
        "cluster.primary.zone.gateway.standby.upstream_rq_2xx": 3,
        "cluster.primary.zone.gateway.standby.upstream_rq_5xx": 1,
        "cluster.standby.zone.gateway.standby.upstream_rq_2xx": 7,
        "cluster.primary-endpoints.upstream_cx_connect_fail": 3,
        "cluster.primary-eu-endpoints.upstream_cx_connect_fail": 9,
        "cluster.collector.upstream_cx_connect_fail": 5,
        "http.gateway.downstream_rq_2xx": 99,
    }
    pools = ["primary-eu", "primary", "standby"]
    assert read_counts(page(stats), pools) == {
        "primary": Count(10, 14, 3, 1), "standby": Count(7, 7, 0), "primary-eu": Count(0, 0, 9),
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"[]", b'{"stats": [{"name": "cluster.a.upstream_cx_connect_fail"}]}'])
def test_what_is_not_envoys_is_refused(body: bytes) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        read_counts(body, ["a"])
