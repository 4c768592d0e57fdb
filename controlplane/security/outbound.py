"""Where we may send requests to: addresses come from the policy page, and a page can be wrong or not ours.

A control plane sits where few can reach and can reach much: an address that leads to a cloud's metadata service, or to
whatever listens next door, would have it fetch secrets or press buttons for somebody else. `policy.load` holds the page
against this, `runtime.outbound` every connection, after names were looked up.
"""

from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

SCHEMES = ("http", "https")
REFUSED = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # link-local; metadata of AWS, Azure, Google, OpenStack (RFC 3927)
        "fe80::/10",  # the same (RFC 4291)
        "fd00:ec2::254/128",  # AWS's metadata by IPv6
        "100.100.100.200/32",  # Alibaba's
        "224.0.0.0/4",  # many at once
        "ff00::/8",
    )
)


@dataclass(frozen=True, slots=True)
class OutboundSpec:
    """Where requests may go."""

    hosts: tuple[str, ...] = ()
    """Names or addresses, `*` for any part: `*.internal`. Empty: whatever the page names. The fleet's own static
    endpoints need not be repeated."""
    link_local: tuple[str, ...] = ()
    """Addresses that may be called although they are link-local or metadata: `169.254.20.10`."""


def refused_address(text: str, spec: OutboundSpec) -> str:
    """Return why an IP address may not be connected to; empty when it may, or when it is a name."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address.sixtofour or address
    if str(address) in spec.link_local or not any(address in network for network in REFUSED):
        return ""
    return f"{text} is a link-local, metadata or multicast address"


def refused_host(host: str, spec: OutboundSpec, known: Collection[str] = ()) -> str:
    """Return why a host may not be called; empty when it may.

    Args:
        host: a name or an address, as a URL has it.
        spec: what the page says.
        known: the fleet's own, which need not be on the page's list.
    """
    if spec.hosts and host not in known and not any(fnmatchcase(host.lower(), one.lower()) for one in spec.hosts):
        return f"{host} is not among `outbound.hosts`"
    return refused_address(host, spec)


def refused_url(url: str, spec: OutboundSpec, known: Collection[str] = ()) -> str:
    """Return why a URL may not be called; empty when it may."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        return str(error)
    if parts.scheme not in SCHEMES:
        return f"{parts.scheme or 'no scheme'} is neither http nor https"
    return refused_host(host, spec, known) if host else "it names no host"
