"""Where a pool's endpoints are listed, as the page says it: what is wrong with it, and the way out; pure."""

import re
from urllib.parse import urlsplit

from controlplane.fleet.model import EndpointSource, KubernetesEndpoints, PrometheusEndpoints
from controlplane.fleet.selector import parse_selector
from controlplane.policy.page import Page, Path, spell

SOURCES = ("static", "file", "kubernetes", "prometheus")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def check_source(page: Page, source: EndpointSource, path: Path) -> None:
    """Note what is wrong with where a pool's endpoints are listed."""
    if sum(bool(getattr(source, name)) for name in SOURCES) != 1:
        page.wrong(
            path, f"`{spell(path)}` needs exactly one of {_named(SOURCES)}", "endpoints are listed in one place",
            'write `static: ["http://10.0.1.1:8000"]` or `kubernetes: { namespace: llm, selector: "app=vllm" }`',
        )  # fmt: skip
    for i, url in enumerate(source.static):
        why = no_endpoint(url)
        if why:
            page.wrong(
                (*path, "static", i), f"`{url}` is not an endpoint", why, "write one such as `http://10.0.1.1:8000`"
            )
    if source.kubernetes:
        _check_kubernetes(page, source.kubernetes, (*path, "kubernetes"))
    if source.prometheus:
        _check_prometheus(page, source.prometheus, (*path, "prometheus"))


def _check_kubernetes(page: Page, spec: KubernetesEndpoints, path: Path) -> None:
    ways = ("selector", "service", "inference_pool")
    if sum(bool(getattr(spec, name)) for name in ways) != 1:
        page.wrong(
            path, f"`{spell(path)}` needs exactly one of {_named(ways)}", "one of them says which pods they are",
            'write `selector: "app=vllm"`',
        )  # fmt: skip
    for key in ("service", "inference_pool", "namespace"):
        name = getattr(spec, key)
        if name and not _NAME.fullmatch(name):
            page.wrong(
                (*path, key), f"`{name}` is no name of Kubernetes", "names are lower case letters, digits, `-` and `.`",
                "write `metadata.name` of the object; its namespace has a key of its own",
            )  # fmt: skip
    try:
        parse_selector(spec.selector)
    except ValueError as error:
        page.wrong(
            (*path, "selector"), f"`{spec.selector}` is no label selector", str(error),
            "write one such as `app=vllm,tier in (gold, silver),!canary`",
        )  # fmt: skip
    if not 0 <= spec.port <= 65535:
        page.wrong(
            (*path, "port"), f"`{spec.port}` is no port", "ports are 1 to 65535", "leave it out to use the pods' own"
        )


def _check_prometheus(page: Page, spec: PrometheusEndpoints, path: Path) -> None:
    if bool(spec.job) == bool(spec.query):
        page.wrong(
            path, f"`{spell(path)}` needs exactly one of `job` and `query`", "one of them says which targets they are",
            "write `job: vllm`",
        )  # fmt: skip
    check_url(page, spec.url, (*path, "url"))
    for key in ("every", "timeout"):
        if getattr(spec, key).total_seconds() <= 0:
            page.wrong((*path, key), f"`{spell((*path, key))}` is not positive", "it is a time", "write `5s`")


def _named(names: tuple[str, ...]) -> str:
    quoted = [f"`{name}`" for name in names]
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def no_endpoint(url: str) -> str:
    """Return why a text is not an endpoint's base URL, or an empty string."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        return str(error)
    return "" if usable else "an endpoint is a base URL"


def check_url(page: Page, url: str, path: Path) -> None:
    """Note that a text is no base URL."""
    why = no_endpoint(url)
    if why:
        such = f"write `http://{url}`" if "://" not in url else "write one such as `http://10.0.1.1:9090`"
        page.wrong(path, f"`{spell(path)}: {url}` is no URL", why, such)
