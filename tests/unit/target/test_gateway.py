"""The gateway's documents: the settings that keep a lost pool from costing requests."""

from pathlib import Path

from controlplane.target import gateway
from controlplane.target.gateway import Place
from controlplane.target.spec import DEFAULT_POOLS

FOLDER = Path("/run/fleet/gateway")


def test_routes_split_traffic_by_weights_named_after_the_pools() -> None:
    (table,) = gateway.routes({"primary": 100, "standby": 0, "base": 0})["resources"]
    route = table["virtual_hosts"][0]["routes"][0]["route"]
    assert route["weighted_clusters"]["clusters"] == [
        {"name": "primary", "weight": 100}, {"name": "standby", "weight": 0}, {"name": "base", "weight": 0},
    ]  # fmt: skip


def test_a_failed_try_goes_to_another_host_and_another_priority() -> None:
    (table,) = gateway.routes({"primary": 100})["resources"]
    policy = table["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
    assert policy["retry_priority"]["name"] == "envoy.retry_priorities.previous_priorities"
    assert policy["retry_host_predicate"][0]["name"] == "envoy.retry_host_predicates.previous_hosts"
    assert {"connect-failure", "reset", "gateway-error"} <= set(policy["retry_on"].split(","))


def test_responses_say_the_level_and_who_answered() -> None:
    (table,) = gateway.routes({"primary": 100}, level="P0")["resources"]
    headers = {item["header"]["key"]: item["header"]["value"] for item in table["response_headers_to_add"]}
    assert headers == {"x-degradation-level": "P0", "x-served-by": "%UPSTREAM_METADATA(envoy.lb:endpoint)%"}


def test_one_failure_ejects_a_host_and_nothing_delays_or_caps_the_rescue() -> None:
    rendered = gateway.clusters(FOLDER, DEFAULT_POOLS)["resources"]
    for cluster in rendered:
        assert cluster["circuit_breakers"]["thresholds"][0]["max_retries"] >= 1024
        if cluster["name"].endswith("-endpoints"):
            outliers = cluster["outlier_detection"]
            assert outliers["consecutive_gateway_failure"] == outliers["consecutive_local_origin_failure"] == 1
            assert outliers["max_ejection_percent"] == 100
            assert cluster["common_lb_config"]["update_merge_window"] == "0s"


def test_each_pool_falls_over_to_the_pools_it_names() -> None:
    rendered = gateway.clusters(FOLDER, DEFAULT_POOLS)["resources"]
    members = {
        cluster["name"]: cluster["cluster_type"]["typed_config"]["clusters"]
        for cluster in rendered
        if "cluster_type" in cluster
    }
    assert members == {
        "primary": ["primary-endpoints", "standby-endpoints"],
        "standby": ["standby-endpoints", "primary-endpoints"],
        "base": ["base-endpoints"],
    }


def test_endpoints_carry_their_name_and_their_pool_as_zone() -> None:
    (assignment,) = gateway.endpoints("primary", [Place("primary-0", "127.0.0.1", 9)])["resources"]
    (locality,) = assignment["endpoints"]
    assert locality["locality"] == {"zone": "primary"}
    assert locality["lb_endpoints"][0]["metadata"]["filter_metadata"]["envoy.lb"] == {"endpoint": "primary-0"}
