"""`/sd`: the fleet as Prometheus discovers it over HTTP (`http_sd_configs`). Called by `app`.

https://prometheus.io/docs/prometheus/latest/http_sd/ asks for a list of target groups as UTF-8 JSON, status 200, and
the whole list each time.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from controlplane.fleet.model import GATEWAY_POOL
from controlplane.flows.standing import Standing
from controlplane.web.api.ports import WebPorts
from controlplane.web.shapes import gives


@dataclass(frozen=True, slots=True)
class TargetGroup:
    """One endpoint as a target."""

    targets: tuple[str, ...]
    """`host:port`."""
    labels: dict[str, str]


def add_discovery(app: FastAPI, ports: WebPorts) -> None:
    """Add the route."""

    @app.get("/sd", tags=["self"], responses=gives(tuple[TargetGroup, ...]))
    async def discover() -> JSONResponse:
        """List the engines as Prometheus scrapes them: a target group each, labelled by service, pool, endpoint, node.

        The gateway is not among them: what its listener answers is not a metrics page.
        """
        groups = target_groups(ports.standing(), ports.metrics_path)
        return JSONResponse([{"targets": group.targets, "labels": group.labels} for group in groups])


def target_groups(standing: Standing, metrics_path: str) -> tuple[TargetGroup, ...]:
    """Return a target group for every engine.

    Args:
        standing: what the fleet is made of.
        metrics_path: where an engine's metrics page is, behind its base URL.
    """
    groups = []
    for pool in standing.pools:
        if pool.name == GATEWAY_POOL:
            continue
        for seen in pool.endpoints:
            at = urlsplit(seen.endpoint.url)
            labels = {
                "service": standing.service,
                "pool": pool.name,
                "endpoint": seen.endpoint.name,
                "node": seen.endpoint.node,
                "__scheme__": at.scheme,
                "__metrics_path__": at.path.rstrip("/") + metrics_path,
            }
            groups.append(TargetGroup((at.netloc,), {name: value for name, value in labels.items() if value}))
    return tuple(groups)
