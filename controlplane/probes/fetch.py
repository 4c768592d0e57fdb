"""Getting a page over HTTP for the probes that ask nodes and servers rather than endpoints.

Bounded in time and size whatever the other side does: an endless body, a redirect loop or a broken certificate costs
one look.
"""

import ssl
from datetime import timedelta

import aiohttp

from controlplane.probes.probe import Failure, Fetched

MAX_BYTES = 16 * 1024 * 1024
_BLOCK = 256 * 1024


class Pages:
    """Fetches pages through one pool of keep-alive connections."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, url: str, within: timedelta) -> Fetched:
        """Get one page; only a 2xx has a content."""
        limit = aiohttp.ClientTimeout(total=within.total_seconds())
        try:
            async with self._session.get(url, timeout=limit, allow_redirects=False) as response:
                content = bytearray()
                async for block in response.content.iter_chunked(_BLOCK):
                    content += block
                    if len(content) > MAX_BYTES:
                        response.close()
                        return Fetched(None, Failure.ANSWER, f"more than {MAX_BYTES} bytes")
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Fetched(None, *explain(error, within))
        if status // 100 != 2:
            return Fetched(None, Failure.STATUS, f"HTTP {status}: {bytes(content[:120])!r}")
        return Fetched(bytes(content))


def explain(error: BaseException, within: timedelta) -> tuple[Failure, str]:
    """Tell how an exchange failed: the wait, the name, the certificate, the connection, or its middle."""
    if isinstance(error, TimeoutError):
        return Failure.TIMEOUT, f"no whole answer within {within.total_seconds():g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Failure.DNS, str(error)
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Failure.NETWORK, f"TLS: {error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return (Failure.REFUSED if refused else Failure.NETWORK), str(error.os_error)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | ConnectionResetError):
        return Failure.RESET, "the connection broke before the answer was whole"
    return Failure.NETWORK, f"{type(error).__name__}: {error}"
