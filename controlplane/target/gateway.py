"""The gateway's front: an Envoy bootstrap, its listeners and its routes. Pure: settings in, JSON out.

Routes split traffic over the pools of ``gateway_clusters`` by weight. Whoever moves traffic rewrites the weights and
the level header in ``rds.json`` and nothing else. A second listener, for the response cache alone, always leads to the
first pool: a cache that asked the public one would be sent back to itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.target.gateway_clusters import TRACES, TYPES, Document, address, xds_file
from controlplane.target.spec import GatewaySpec

ROUTES = "routes"
"""Name of the one route configuration that weights live in."""
ZONE = "gateway"
"""The gateway's own zone. Each pool is a zone too, so that Envoy counts answers by the pool that really gave them; the
plain cluster counters charge an aggregate for whatever its failover answered."""
POOL_TAG = rf"^cluster\.[^.]+\.zone\.({ZONE}\.([^.]+)\.)"
"""Turns zone counters into envoy_cluster_zone_upstream_rq_xx{pool="standby",envoy_cluster_name="primary"}."""
LEVEL_HEADER = "x-degradation-level"
SERVED_BY_HEADER = "x-served-by"
RETRY_AFTER_S = 1
"""What a client that came too often is told to wait."""
RETRY_ON = "connect-failure,refused-stream,reset,retriable-status-codes"
"""Retried is what no endpoint has begun to answer: it could not be reached, went away, or said 503."""


@dataclass(frozen=True, slots=True)
class Doors:
    """The ports that the gateway listens on; they stay the same when Envoy is started again."""

    public: int
    """For clients, on 127.0.0.1."""
    admin: int
    fills: int | None = None
    """For the response cache, when the fleet has one."""
    fills_host: str = "127.0.0.1"
    """Where the cache reaches it; the bridge's address when the cache has a network namespace of its own."""


def bootstrap(folder: Path, admin_port: int) -> Document:
    """Render the bootstrap: where the xDS files lie, and the admin listener."""
    return {
        "node": {"id": "gateway", "cluster": "controlplane", "locality": {"zone": ZONE}},
        "admin": {"address": address("127.0.0.1", admin_port)},
        "dynamic_resources": {"lds_config": xds_file(folder, "lds"), "cds_config": xds_file(folder, "cds")},
        "stats_config": {"stats_tags": [{"tag_name": "pool", "regex": POOL_TAG}]},
        "stats_flush_on_admin": True,
        "cluster_manager": {"outlier_detection": {"event_log_path": str(folder.parent / "logs" / "outliers.log")}},
    }


def listeners(folder: Path, doors: Doors, first_pool: str, access_log: Path, spec: GatewaySpec) -> Document:
    """Render the public listener and, where there is a cache, the one for what it cannot answer."""
    public = _listener("gateway", "127.0.0.1", doors.public, _manager("gateway", access_log, spec))
    public_manager = public["filter_chains"][0]["filters"][0]["typed_config"]
    public_manager["rds"] = {"route_config_name": ROUTES, "config_source": xds_file(folder, "rds")}
    public_manager["http_filters"].insert(0, _rate_limit(spec.rate_per_s, spec.burst))
    if doors.fills is None:
        return {"resources": [public]}
    fills = _listener("fills", doors.fills_host, doors.fills, _manager("fills", access_log, spec))
    route = {"match": {"prefix": "/"}, "route": {"cluster": first_pool, **_efforts(spec)}}
    fills["filter_chains"][0]["filters"][0]["typed_config"]["route_config"] = {
        "name": "fills",
        "response_headers_to_add": [_served_by()],
        "virtual_hosts": [{"name": "fleet", "domains": ["*"], "routes": [route]}],
    }
    return {"resources": [public, fills]}


def routes(weights: Mapping[str, int], level: str = "none", spec: GatewaySpec | None = None) -> Document:
    """Render the routes.

    Args:
        weights: share of traffic by pool; they sum to 100.
        level: what responses say about the service in ``x-degradation-level``.
        spec: how long and how often the gateway tries.
    """
    clusters = [{"name": pool, "weight": weight} for pool, weight in weights.items()]
    route = {
        "match": {"prefix": "/"},
        "route": {"weighted_clusters": {"clusters": clusters}, **_efforts(spec or GatewaySpec())},
    }
    table = {
        "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
        "name": ROUTES,
        "response_headers_to_add": [_header(LEVEL_HEADER, level), _served_by()],
        "virtual_hosts": [{"name": "service", "domains": ["*"], "routes": [route]}],
    }
    return {"resources": [table]}


def _efforts(spec: GatewaySpec) -> Document:
    """Render deadline, retries and what is done about an endpoint that hangs with its connections open.

    A try that has not begun to answer in time is tried elsewhere while the first one goes on, and whoever answers first
    is taken (a hedge): a long answer is not cut off, and each such wait counts towards the ejection of its host.
    """
    efforts: Document = {"timeout": f"{spec.deadline_s}s", "retry_policy": _retries(spec.max_retries)}
    if spec.hung_after_s is not None and spec.max_retries:
        efforts["retry_policy"]["per_try_timeout"] = f"{spec.hung_after_s}s"
        efforts["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    return efforts


def _retries(most: int) -> Document:
    """Retry in the next pool at once, then again from the first, never on the same host.

    Staying in a pool first was measured too: when a pool is full, its own other hosts are full as well, and every retry
    made it fuller (849 retries of 1,993 requests, against 357 that went where there was room). Waiting for the host's
    Retry-After held the budget for seconds, while the next pool idled. Envoy draws each wait at random between 0 and
    the back-off, which doubles from base to maximum.
    """
    extensions = f"{TYPES}.extensions.retry"
    return {
        "retry_on": RETRY_ON,
        "retriable_status_codes": [503],
        "num_retries": most,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{extensions}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
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


def _listener(name: str, host: str, port: int, manager: Document) -> Document:
    connection = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "@type": f"{TYPES}.config.listener.v3.Listener",
        "name": name,
        "address": address(host, port),
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [connection]}],
    }


def _manager(name: str, access_log: Path, spec: GatewaySpec) -> Document:
    """Render the HTTP side of a listener. Clients here count as internal, which lets them shorten their deadline."""
    manager: Document = {
        "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "preserve_external_request_id": True,
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]},
        "access_log": [_access_log(access_log)],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    if spec.otlp_url:
        manager["tracing"] = _tracing(name, spec.otlp_url)
    return manager


def _tracing(name: str, url: str) -> Document:
    tracer = {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "http_service": {
            "http_uri": {"uri": f"{url.rstrip('/')}/v1/traces", "cluster": TRACES, "timeout": "1s"},
        },
        "service_name": name,
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": tracer},
        "random_sampling": {"value": 100.0},
        "spawn_upstream_span": True,
    }


def _rate_limit(rate_per_s: float | None, burst: int) -> Document:
    """Render the token bucket, refilled ten times a second where the rate allows so that arrivals are not clumped.

    Without a rate the filter lets everything in; it stands there so that a route may be given a bucket of its own.
    """
    if rate_per_s is None:
        idle = {"@type": f"{TYPES}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "gateway"}
        return {"name": "envoy.filters.http.local_ratelimit", "typed_config": idle}
    per_fill = max(round(rate_per_s / 10), 1)
    everyone = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "name": "envoy.filters.http.local_ratelimit",
        "typed_config": {
            "@type": f"{TYPES}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "gateway",
            "token_bucket": {
                "max_tokens": max(burst, per_fill),
                "tokens_per_fill": per_fill,
                "fill_interval": f"{per_fill / rate_per_s:.3f}s",
            },
            "filter_enabled": {"runtime_key": "rate_limit_enabled", **everyone},
            "filter_enforced": {"runtime_key": "rate_limit_enforced", **everyone},
            "response_headers_to_add": [_header("retry-after", str(RETRY_AFTER_S))],
        },
    }


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
        "cache": "%RESP(X-CACHE)%",
        "traceparent": "%REQ(TRACEPARENT)%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


def _served_by() -> Document:
    return _header(SERVED_BY_HEADER, "%UPSTREAM_METADATA(envoy.lb:endpoint)%")


def _header(key: str, value: str) -> Document:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
