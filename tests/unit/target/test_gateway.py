"""The gateway's documents: the settings that keep a lost pool from costing requests."""

import re
from pathlib import Path
from typing import Any

from controlplane.target import gateway, gateway_clusters
from controlplane.target.gateway import Doors
from controlplane.target.gateway_clusters import Place
from controlplane.target.spec import DEFAULT_POOLS, GatewaySpec

FOLDER = Path("/run/fleet/gateway")


DOORS = Doors(public=8000, admin=9901, fills=8001)


def listening(spec: GatewaySpec, doors: Doors = DOORS) -> list[dict[str, Any]]:
    rendered: list[dict[str, Any]] = gateway.listeners(FOLDER, doors, "primary", Path("access.log"), spec)["resources"]
    return rendered


def manager(listener: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


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
    assert set(policy["retry_on"].split(",")) == {
        "connect-failure",
        "refused-stream",
        "reset",
        "retriable-status-codes",
    }
    assert policy["retriable_status_codes"] == [503]


def test_retries_leave_a_pool_at_once_and_back_off() -> None:
    (table,) = gateway.routes({"primary": 100})["resources"]
    policy = table["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
    assert policy["retry_priority"]["typed_config"]["update_frequency"] == 1
    assert policy["retry_back_off"] == {"base_interval": "0.005s", "max_interval": "0.1s"}


def test_responses_say_the_level_and_who_answered() -> None:
    (table,) = gateway.routes({"primary": 100}, level="P0")["resources"]
    headers = {item["header"]["key"]: item["header"]["value"] for item in table["response_headers_to_add"]}
    assert headers == {"x-degradation-level": "P0", "x-served-by": "%UPSTREAM_METADATA(envoy.lb:endpoint)%"}


def test_lost_connections_eject_a_host_and_full_queues_do_not() -> None:
    rendered = gateway_clusters.clusters(FOLDER, DEFAULT_POOLS)["resources"]
    for cluster in rendered:
        if cluster["name"].endswith("-endpoints"):
            outliers = cluster["outlier_detection"]
            assert outliers["split_external_local_origin_errors"] is True
            assert 1 < outliers["consecutive_local_origin_failure"] <= 3
            assert outliers["enforcing_consecutive_gateway_failure"] == 0
            assert outliers["max_ejection_percent"] == 100
            assert cluster["common_lb_config"]["update_merge_window"] == "0s"
            (options,) = cluster["typed_extension_protocol_options"].values()
            (status,) = options["outlier_detection"]["error_matcher"]["http_response_headers_match"]["headers"]
            broken = re.compile(status["string_match"]["safe_regex"]["regex"])
            assert [code for code in ("200", "429", "500", "502", "503", "504") if broken.search(code)] == [
                "500", "502", "504",
            ]  # fmt: skip


def test_retries_have_a_budget_above_envoys_own_cap_of_three() -> None:
    for cluster in gateway_clusters.clusters(FOLDER, DEFAULT_POOLS, GatewaySpec(retry_concurrency=64))["resources"]:
        (limits,) = cluster["circuit_breakers"]["thresholds"]
        assert limits["retry_budget"]["min_retry_concurrency"] == 64


def test_the_cache_has_a_door_of_its_own_that_leads_to_the_first_pool_alone() -> None:
    public, fills = listening(GatewaySpec())
    assert manager(public)["rds"]["route_config_name"] == gateway.ROUTES
    (host,) = manager(fills)["route_config"]["virtual_hosts"]
    assert host["routes"][0]["route"]["cluster"] == "primary"
    assert len(listening(GatewaySpec(), Doors(8000, 9901))) == 1


def test_the_token_bucket_holds_only_the_public_door() -> None:
    public, fills = listening(GatewaySpec(rate_per_s=20.0, burst=5))
    bucket = manager(public)["http_filters"][0]["typed_config"]
    assert bucket["token_bucket"] == {"max_tokens": 5, "tokens_per_fill": 2, "fill_interval": "0.100s"}
    assert bucket["response_headers_to_add"][0]["header"] == {"key": "retry-after", "value": "1"}
    assert len(manager(fills)["http_filters"]) == 1


def test_without_a_rate_the_bucket_of_the_public_door_is_there_and_empty_so_that_a_route_may_have_its_own() -> None:
    first, router = manager(listening(GatewaySpec())[0])["http_filters"]
    assert first["name"] == "envoy.filters.http.local_ratelimit"
    assert "token_bucket" not in first["typed_config"]
    assert router["name"] == "envoy.filters.http.router"


def test_a_try_that_hangs_is_tried_elsewhere_without_being_cut_off() -> None:
    (table,) = gateway.routes({"primary": 100}, spec=GatewaySpec(hung_after_s=1.5))["resources"]
    action = table["virtual_hosts"][0]["routes"][0]["route"]
    assert action["retry_policy"]["per_try_timeout"] == "1.5s"
    assert action["hedge_policy"] == {"hedge_on_per_try_timeout": True}
    (table,) = gateway.routes({"primary": 100}, spec=GatewaySpec(hung_after_s=None))["resources"]
    assert "hedge_policy" not in table["virtual_hosts"][0]["routes"][0]["route"]


def test_traces_go_to_the_collector_only_when_there_is_one() -> None:
    spec = GatewaySpec(otlp_url="http://127.0.0.1:4318")
    assert "tracing" in manager(listening(spec)[0])
    assert "tracing" not in manager(listening(GatewaySpec())[0])
    names = [cluster["name"] for cluster in gateway_clusters.clusters(FOLDER, DEFAULT_POOLS, spec)["resources"]]
    assert names.count("traces") == 1


def test_the_admin_address_is_chosen_before_envoy_starts() -> None:
    address = gateway.bootstrap(FOLDER, 9901)["admin"]["address"]["socket_address"]
    assert address == {"address": "127.0.0.1", "port_value": 9901}


def test_each_pool_falls_over_to_the_pools_it_names() -> None:
    rendered = gateway_clusters.clusters(FOLDER, DEFAULT_POOLS)["resources"]
    members = {
        cluster["name"]: cluster["cluster_type"]["typed_config"]["clusters"]
        for cluster in rendered
        if "cluster_type" in cluster
    }
    assert members == {
        "primary": ["primary-endpoints", "standby-endpoints"],
        "standby": ["standby-endpoints", "primary-endpoints"],
        "base": ["base-endpoints"],
        "cache": ["cache-endpoints", "primary-endpoints", "standby-endpoints"],
    }


def test_endpoints_carry_their_name_and_their_pool_as_zone() -> None:
    (assignment,) = gateway_clusters.endpoints("primary", [Place("primary-0", "127.0.0.1", 9)])["resources"]
    (locality,) = assignment["endpoints"]
    assert locality["locality"] == {"zone": "primary"}
    assert locality["lb_endpoints"][0]["metadata"]["filter_metadata"]["envoy.lb"] == {"endpoint": "primary-0"}
