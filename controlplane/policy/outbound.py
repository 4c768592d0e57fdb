"""Holds every address on a page against what the page says of where requests may go."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.policy.page import Page, Path, spell
from controlplane.security.outbound import OutboundSpec, refused_url

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NO_ADDRESSES = ("commands", "prompt", "queries", "outbound", "publish")
"""Keys under which a text that looks like an address is something else, or one that others call."""


def check_addresses(page: Page, data: Any, spec: OutboundSpec, known: tuple[str, ...]) -> None:
    """Note every URL on a page that may not be called.

    Args:
        page: gets the problems.
        data: the page with its defaults.
        spec: its own rules.
        known: hosts of the fleet itself.
    """
    for path, url in _urls(data, ()):
        # A probe's page may name the endpoint's own host, which is judged where the endpoint is.
        why = refused_url(url.replace("{host}", "host").replace("{node}", "node"), spec, (*known, "host", "node"))
        if why:
            page.wrong(
                path, f"`{spell(path)}` may not be called", why,
                "name an http or https address, or allow it under `outbound` (`hosts`, `link_local`)",
            )  # fmt: skip


def _urls(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Yield every text that reads as a URL, with where it stands."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key not in NO_ADDRESSES:
                yield from _urls(value, (*path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _urls(value, (*path, i))
    elif isinstance(node, str) and _URL.match(node):
        yield path, node
