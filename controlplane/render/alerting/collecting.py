"""What Prometheus is told to collect, and how its operator is told the same; pure.

A whole configuration for a Prometheus of its own, and objects for the Prometheus operator: the rules, and monitors of
the control plane and of the engines. Called by `pages`.
"""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from urllib.parse import SplitResult, urlsplit

from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting.rules import Group, Links, bodies
from controlplane.render.alerting.yaml_text import Value, dump
from controlplane.render.wording import slug

METRICS = "/metrics"
_OF = "app.kubernetes.io/part-of"


def prometheus(policy: Policy, header: str, rules: str) -> str:
    """Write a configuration that scrapes fleet and control plane, and takes the rules beside it."""
    publish = policy.publish
    pace = spell_duration(publish.scrape)
    body: dict[str, Value] = {
        "global": {
            "scrape_interval": pace,
            "scrape_timeout": pace,
            "evaluation_interval": spell_duration(publish.evaluation),
        },
        "rule_files": [rules],
        "scrape_configs": [
            _job("controlplane", urlsplit(publish.control), [urlsplit(publish.control).netloc], {}),
            *(job for name in policy.fleet.pools for job in _pool(policy, name)),
        ],
    }
    if policy.alertmanager:
        given = urlsplit(policy.alertmanager)
        body["alerting"] = {
            "alertmanagers": [
                {
                    "scheme": given.scheme,
                    "path_prefix": given.path or "/",
                    "static_configs": [{"targets": [given.netloc]}],
                }
            ]
        }
    return _commented(header) + dump(body)


def _pool(policy: Policy, name: str) -> Iterator[Value]:
    """Give the jobs of one pool: one that reads its list, or one for each scheme and path of its addresses."""
    spec = policy.fleet.pools[name].endpoints
    labels = {"pool": name, "service": policy.service}
    if spec.file:
        there = spec.file if spec.file.startswith("/") else posixpath.relpath(spec.file, f"{policy.publish.dir}/alerts")
        yield {
            "job_name": f"fleet-{slug(name)}",
            "file_sd_configs": [{"files": [there]}],
            "relabel_configs": [
                {"target_label": label, "replacement": value.replace("$", "$$")} for label, value in labels.items()
            ],
        }
        return
    urls = sorted((urlsplit(url) for url in spec.static), key=lambda url: (url.scheme, url.path))
    for i, (_, same) in enumerate(groupby(urls, key=lambda url: (url.scheme, url.path))):
        found = list(same)
        yield _job(f"fleet-{slug(name)}{f'-{i}' if i else ''}", found[0], [url.netloc for url in found], labels)


def _job(name: str, at: SplitResult, targets: Sequence[str], labels: Mapping[str, str]) -> dict[str, Value]:
    targeted: dict[str, Value] = {"targets": list(targets)}
    return {
        "job_name": name,
        "scheme": at.scheme,
        "metrics_path": f"{at.path.rstrip('/')}{METRICS}",
        "static_configs": [targeted | ({"labels": dict(labels)} if labels else {})],
    }


def operator(policy: Policy, header: str, groups: tuple[Group, ...], links: Links) -> Iterator[tuple[str, str]]:
    """Give the objects for the Prometheus operator by the name of their file."""
    name, labels = _dns(policy.service), {_OF: _dns(policy.service)}
    pace = spell_duration(policy.publish.scrape)
    written = {
        "prometheusrule": _object(
            "PrometheusRule", name, labels, {"groups": list(bodies(groups, policy.service, links))}
        ),
        "servicemonitor-controlplane": _object(
            "ServiceMonitor", f"{name}-controlplane"[:63], labels,
            {
                "selector": {"matchLabels": {"app.kubernetes.io/name": "controlplane"}},
                "endpoints": [{"port": "http", "path": METRICS, "interval": pace, "scrapeTimeout": pace}],
            },
        ),
        "servicemonitor-fleet": _object(
            "ServiceMonitor", f"{name}-fleet"[:63], labels,
            {
                "selector": {
                    "matchLabels": dict(labels),
                    "matchExpressions": [
                        {"key": "pool", "operator": "In", "values": [_label(pool) for pool in policy.fleet.pools]}
                    ],
                },
                "targetLabels": ["pool"],
                "endpoints": [{"port": "http", "path": METRICS, "interval": pace, "scrapeTimeout": pace}],
            },
        ),
    }  # fmt: skip
    for file, body in written.items():
        yield f"operator/{file}.yaml", _commented(header) + dump(body)
    listed: dict[str, Value] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [f"{file}.yaml" for file in written],
    }  # fmt: skip
    yield "operator/kustomization.yaml", _commented(header) + dump(listed)


def _object(kind: str, name: str, labels: Mapping[str, Value], spec: Mapping[str, Value]) -> dict[str, Value]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": dict(spec),
    }


def _dns(text: str) -> str:
    """Return a text as the name of an object: at most 50 lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:50].strip("-") or "unnamed"


def _label(text: str) -> str:
    return slug(text)[:63].strip("-._")


def _commented(header: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
