"""The gateway's clusters and endpoints, as Envoy's file-based xDS documents. Pure: settings in, JSON out.

A pool is two clusters: ``<pool>-endpoints`` holds its endpoints, and ``<pool>`` is an aggregate that falls over to the
pools named as its failover, as priority levels inside Envoy.

The settings were measured. What says that a host is gone (a refused connection, a cut one) ejects it; what it answers
does not, because a 503 of a full queue means that it works: ejecting full hosts moves their load to the others until
none is left. Neither Envoy's cap of 3 concurrent retries nor its 1 s merge window of host updates may stand in the
way of a rescue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controlplane.target.spec import GatewaySpec, PoolSpec

Document = dict[str, Any]

TYPES = "type.googleapis.com/envoy"
TRACES = "traces"
"""Name of the cluster of the OpenTelemetry collector."""
CONNECT_TIMEOUT = "0.25s"
IDLE_TIMEOUT = "30s"
"""Idle connections to endpoints are closed after this; endpoints keep them longer."""
EJECTION = "1s"
"""How long a failing host is left out; short, so that a restarted endpoint is taken back quickly."""
LOST_AFTER = 3
"""Connection failures in a row that eject a host. One would let a single request that ran into its deadline do it, two
were reached by a gateway short of CPU; each failure costs no more than another try."""
BROKEN_AFTER = 5
"""Answers 500, 502 or 504 in a row that eject a host."""
BROKEN = "^50[024]$"
"""Answers that say an endpoint is broken. 503 is not among them: it says that an endpoint is full."""


@dataclass(frozen=True, slots=True)
class Place:
    """One endpoint as the gateway sees it."""

    name: str
    host: str
    port: int


def clusters(folder: Path, pools: Mapping[str, PoolSpec], spec: GatewaySpec | None = None) -> Document:
    """Render two clusters a pool, its endpoints and the aggregate with its failover, and the trace collector's."""
    asked = spec or GatewaySpec()
    rendered: list[Document] = []
    for name, pool in pools.items():
        members = [f"{member}-endpoints" for member in (name, *pool.failover)]
        rendered += [_endpoint_cluster(folder, name, asked), _aggregate(name, members, asked)]
    if asked.otlp_url:
        rendered.append(_collector(asked.otlp_url))
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


def address(host: str, port: int) -> Document:
    """Render a TCP address."""
    return {"socket_address": {"address": host, "port_value": port}}


def xds_file(folder: Path, name: str) -> Document:
    """Render a reference to an xDS file that Envoy watches."""
    return {
        "path_config_source": {
            "path": str(folder / "xds" / f"{name}.json"),
            "watched_directory": {"path": str(folder / "xds")},
        },
        "resource_api_version": "V3",
    }


def _place(place: Place) -> Document:
    return {
        "endpoint": {"address": address(place.host, place.port)},
        "metadata": {"filter_metadata": {"envoy.lb": {"endpoint": place.name}}},
    }


def _endpoint_cluster(folder: Path, pool: str, spec: GatewaySpec) -> Document:
    bound = (
        {"upstream_bind_config": {"source_address": {"address": spec.source, "port_value": 0}}} if spec.source else {}
    )
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": f"{pool}-endpoints",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": xds_file(folder, eds_file(pool))},
        "connect_timeout": CONNECT_TIMEOUT,
        **bound,
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"update_merge_window": "0s"},
        "circuit_breakers": _breakers(spec),
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": LOST_AFTER,
            "enforcing_consecutive_local_origin_failure": 100,
            "consecutive_5xx": BROKEN_AFTER,
            "enforcing_consecutive_5xx": 100,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "0.5s",
            "base_ejection_time": EJECTION,
            "max_ejection_time": EJECTION,
            "max_ejection_percent": 100,
        },
        "typed_extension_protocol_options": _http_options(),
    }


def _aggregate(name: str, members: Sequence[str], spec: GatewaySpec) -> Document:
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": name,
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": _breakers(spec),
        "typed_extension_protocol_options": _http_options(),
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": f"{TYPES}.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": list(members),
            },
        },
    }


def _http_options() -> Document:
    """Render what the cluster and its aggregate both need: Envoy asks the aggregate which answers are errors."""
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": {"idle_timeout": IDLE_TIMEOUT},
            "explicit_http_config": {"http_protocol_options": {}},
            "outlier_detection": {
                "error_matcher": {
                    "http_response_headers_match": {
                        "headers": [{"name": ":status", "string_match": {"safe_regex": {"regex": BROKEN}}}]
                    }
                }
            },
        }
    }


def _collector(url: str) -> Document:
    parts = urlsplit(url)
    place = {"endpoint": {"address": address(parts.hostname or "127.0.0.1", parts.port or 4318)}}
    return {
        "@type": f"{TYPES}.config.cluster.v3.Cluster",
        "name": TRACES,
        "type": "STRICT_DNS",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": TRACES, "endpoints": [{"lb_endpoints": [place]}]},
    }


def _breakers(spec: GatewaySpec) -> Document:
    """Render the circuit breaker and the retry budget.

    Envoy counts the active requests of an aggregate at its members, so a budget in percent of them would be a share of
    nothing: only the floor, ``min_retry_concurrency``, has an effect there.
    """
    limits = dict.fromkeys(("max_connections", "max_requests", "max_pending_requests"), spec.max_requests)
    budget = {"budget_percent": {"value": 20.0}, "min_retry_concurrency": spec.retry_concurrency}
    return {"thresholds": [{"priority": "DEFAULT", **limits, "retry_budget": budget, "track_remaining": True}]}
