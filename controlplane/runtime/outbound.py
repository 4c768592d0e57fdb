"""The HTTP client of everything that is called at an address from the policy page: it goes where it may and no further.

Names are judged after they were looked up, at the connection itself, so that a name that leads to one address when it
is checked and to another when it is called gains nothing; a redirect to another host is an error.
"""

import errno
import socket
from collections.abc import Collection
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from controlplane.security.outbound import OutboundSpec, refused_address, refused_host


class RefusedError(aiohttp.ClientConnectionError):
    """A request that would have gone where none may go."""


def outbound_session(spec: OutboundSpec, known: Collection[str]) -> aiohttp.ClientSession:
    """Return a client session that keeps to a page's rules.

    Args:
        spec: the rules.
        known: hosts of the fleet itself.
    """

    def connecting(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        why = refused_address(str(address[0]), spec)
        if why:
            said = f"not connected: {why}; `outbound.link_local` on the page can allow it"
            raise OSError(errno.EHOSTUNREACH, said)
        return socket.socket(family, kind, protocol)

    async def watch(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        why = refused_host(request.url.host or "", spec, known)
        if why:
            raise RefusedError(f"not called: {why}")
        response = await handler(request)
        onward = response.headers.get("location", "") if response.status in (301, 302, 303, 307, 308) else ""
        if onward and urlsplit(urljoin(str(request.url), onward)).netloc != urlsplit(str(request.url)).netloc:
            response.close()
            raise RefusedError(f"{request.url.host} sends us on to another host")
        return response

    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, socket_factory=connecting)
    return aiohttp.ClientSession(connector=connector, middlewares=(watch,))
