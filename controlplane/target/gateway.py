"""The gateway's configuration: an Envoy bootstrap and its file-based xDS documents. Pure: settings in, JSON out.

A pool is two clusters: ``<pool>-endpoints`` holds its endpoints, and ``<pool>`` is an aggregate that falls over to the
pools named as its failover. Routes split traffic over the aggregates by weight. Whoever moves traffic rewrites the
weights and the level header in ``rds.json`` and nothing else.

The settings that keep a lost pool from costing requests were measured: one failure ejects a host, a failed try goes to
another host and then to the next pool, and neither Envoy's cap of 3 concurrent retries nor its 1 s merge window of
host updates may stand in the way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.target.spec import PoolSpec

Document = dict[str, Any]

TYPES = "type.googleapis.com/envoy"
ROUTES = "routes"
"""Name of the one route configuration."""
ZONE = "gateway"
"""The gateway's own zone. Each pool is a zone too, so that Envoy counts answers by the pool that really gave them; the
plain cluster counters charge an aggregate for whatever its failover answered."""
POOL_TAG = rf"^cluster\.[^.]+\.zone\.({ZONE}\.([^.]+)\.)"
"""Turns zone counters into envoy_cluster_zone_upstream_rq_xx{pool="standby",envoy_cluster_name="primary"}."""
LEVEL_HEADER = "x-degradation-level"
SERVED_BY_HEADER = "x-served-by"
CONNECT_TIMEOUT = "0.25s"
ROUTE_TIMEOUT = "60s"
"""Longest answer, all tries together."""
IDLE_TIMEOUT = "30s"
"""Idle connections to endpoints are closed after this; endpoints keep them longer."""
EJECTION = "1s"
"""How long a failing host is left out; short, so that a restarted endpoint is taken back quickly."""
MAX_RETRIES = 1024
"""Concurrent retries in a pool."""
MAX_REQUESTS = 16_384


@dataclass(frozen=True, slots=True)
class Place:
    """One endpoint as the gateway sees it."""

    name: str
    host: str
    port: int


def bootstrap(folder: Path) -> Document:
    """Render the bootstrap: where the xDS files lie and the admin listener on a free port of 127.0.0.1."""
    return {
        "node": {"id": "gateway", "cluster": "controlplane", "locality": {"zone": ZONE}},
        "admin": {"address": _address("127.0.0.1", 0)},
        "dynamic_resources": {"lds_config": _file(folder, "lds"), "cds_config": _file(folder, "cds")},
        "stats_config": {"stats_tags": [{"tag_name": "pool", "regex": POOL_TAG}]},
        "stats_flush_on_admin": True,
        "cluster_manager": {"outlier_detection": {"event_log_path": str(folder.parent / "logs" / "outliers.log")}},
    }


def listeners(folder: Path, port: int, access_log: Path) -> Document:
    """Render the one HTTP listener on 127.0.0.1."""
    manager = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "preserve_external_request_id": True,
        "rds": {"route_config_name": ROUTES, "config_source": _file(folder, "rds")},
        "access_log": [_access_log(access_log)],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    connection = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": "gateway",
        "address": _address("127.0.0.1", port),
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [connection]}],
    }
    return {"resources": [listener]}


def routes(weights: Mapping[str, int], level: str = "none") -> Document:
    """Render the routes.

    Args:
        weights: share of traffic by pool; they sum to 100.
        level: what responses say about the service in ``x-degradation-level``.
    """
    clusters = [{"name": pool, "weight": weight} for pool, weight in weights.items()]
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": clusters}, "timeout": ROUTE_TIMEOUT, "retry_policy": _retries()},
    }
    table = {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "response_headers_to_add": [
            _header(LEVEL_HEADER, level),
            _header(SERVED_BY_HEADER, "%UPSTREAM_METADATA(envoy.lb:endpoint)%"),
        ],
        "virtual_hosts": [{"name": "service", "domains": ["*"], "routes": [route]}],
    }
    return {"resources": [table]}


def clusters(folder: Path, pools: Mapping[str, PoolSpec]) -> Document:
    """Render two clusters a pool: its endpoints, and the aggregate with its failover."""
    rendered: list[Document] = []
    for name, pool in pools.items():
        members = [f"{member}-endpoints" for member in (name, *pool.failover)]
        rendered += [_endpoint_cluster(folder, name), _aggregate(name, members)]
    return {"resources": rendered}


def endpoints(pool: str, places: Sequence[Place]) -> Document:
    """Render the endpoints of one pool, with their names as metadata for ``x-served-by``.

    Envoy takes exactly one assignment from a file, so every pool has a file of its own (``eds_file``).
    """
    assignment = {
        "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": f"{pool}-endpoints",
        "endpoints": [{"locality": {"zone": pool}, "lb_endpoints": [_place(place) for place in places]}],
    }
    return {"resources": [assignment]}


def eds_file(pool: str) -> str:
    """Return the name of the xDS file that holds a pool's endpoints."""
    return f"eds-{pool}"


def _place(place: Place) -> Document:
    return {
        "endpoint": {"address": _address(place.host, place.port)},
        "metadata": {"filter_metadata": {"envoy.lb": {"endpoint": place.name}}},
    }


def _endpoint_cluster(folder: Path, pool: str) -> Document:
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": f"{pool}-endpoints",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _file(folder, eds_file(pool))},
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"update_merge_window": "0s"},
        "circuit_breakers": _breakers(),
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "consecutive_gateway_failure": 1,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "0.5s",
            "base_ejection_time": EJECTION,
            "max_ejection_time": EJECTION,
            "max_ejection_percent": 100,
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": IDLE_TIMEOUT},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _aggregate(name: str, members: Sequence[str]) -> Document:
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _breakers(),
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{TYPES}.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": list(members),
            },
        },
    }


def _retries() -> Document:
    """Retry what no endpoint has answered: on another host, then in the next pool."""
    extensions = f"{TYPES}.extensions.retry"
    return {
        "retry_on": "connect-failure,refused-stream,reset,gateway-error",
        "num_retries": 3,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{extensions}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2,
            },
        },
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{extensions}.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
    }


def _breakers() -> Document:
    limits = {"max_retries": MAX_RETRIES, "max_requests": MAX_REQUESTS, "max_pending_requests": MAX_REQUESTS}
    return {"thresholds": [{"priority": "DEFAULT", "max_connections": MAX_REQUESTS, **limits}]}


def _access_log(path: Path) -> Document:
    fields = {
        "ts": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(:PATH)%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "served_by": "%UPSTREAM_METADATA(envoy.lb:endpoint)%",
        "level": f"%RESP({LEVEL_HEADER})%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _header(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _address(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _file(folder: Path, name: str) -> Document:
    return {
        "path_config_source": {
            "path": str(folder / "xds" / f"{name}.json"),
            "watched_directory": {"path": str(folder / "xds")},
        },
        "resource_api_version": "V3",
    }
