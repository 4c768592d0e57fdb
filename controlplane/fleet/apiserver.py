"""A Kubernetes API server over HTTP: lists, and watches that stream, each bounded in time; every answer is counted.

Who asks, and how the server is reached, is the official client's business (`kubeconfig`). What it reads is not: its
watches block a thread each, and build typed objects of everything.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import random
from time import monotonic
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit
from urllib.request import proxy_bypass

import aiohttp
import structlog

from controlplane.errors import UnreachableError
from controlplane.fleet.certificate import ends_at
from controlplane.fleet.following import WATCH_S, Change, Following, GoneError
from controlplane.fleet.kubeconfig import settings_of

CONNECT_TIMEOUT_S = 3.0
LIST_TIMEOUT_S = 10.0
WATCH_GRACE_S = 10.0
"""How much longer than it asked for a watch may last, before it counts as dead."""
MAX_LINE_BYTES = 8 * 1024 * 1024
"""A line of a watch is one object; etcd keeps none over 1.5 MiB."""
MAX_WAIT_S = 30.0
"""The longest `Retry-After` that is obeyed."""

log = structlog.get_logger("kubernetes")

Count = Callable[[str, str, str], None]
"""Counts a request: (verb, resource, HTTP status or kind of failure)."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object in one namespace, or of the whole cluster."""

    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    """Those that are tried, the best first; `GROUP/VERSION` where an older one had another group."""
    namespace: str = ""
    query: tuple[tuple[str, str], ...] = ()
    """Narrows it down, such as a label selector."""

    def path(self, version: str) -> str:
        """Return where a version of it is served."""
        group, _, number = version.rpartition("/")
        group = group or self.group
        root = f"/apis/{group}/{number}" if group else f"/api/{number}"
        return f"{root}/namespaces/{self.namespace}/{self.plural}" if self.namespace else f"{root}/{self.plural}"

    @property
    def where(self) -> str:
        """Where it is, in words."""
        return f"{self.plural} in namespace {self.namespace}" if self.namespace else self.plural


class RefusedError(UnreachableError):
    """The API server answered, and it was a refusal."""

    def __init__(self, status: int, wait_s: float, what: str, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.status = status
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached, and who asks."""

    url: str
    headers: Mapping[str, str]
    tls: ssl.SSLContext | bool
    certificate: str = ""
    """The file of the client's certificate; empty without one."""
    server_name: str | None = None
    proxy: str | None = None


class Door(Protocol):
    """Says how a server is reached; credentials may be renewed at any time."""

    async def __call__(self) -> Access:
        """Return the access as it is now.

        Raises:
            UnreachableError: when nobody says how.
        """


def kubeconfig_door(kubeconfig: str, context: str) -> Door:
    """Return the door that a kubeconfig describes; it is read anew every minute: certificates are renewed in it."""
    kept: list[tuple[float, Any, ssl.SSLContext | bool]] = []

    def read() -> Access:
        if not kept or monotonic() - kept[0][0] > 60.0:
            settings = settings_of(kubeconfig, context)
            kept[:] = [(monotonic(), settings, _tls(settings))]
        _, settings, tls = kept[0]
        token = settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        host = urlsplit(settings.host).hostname or ""
        proxy = settings.proxy if settings.proxy and not proxy_bypass(host) else None
        return Access(
            settings.host.rstrip("/"), {"authorization": token} if token else {}, tls, settings.cert_file or "",
            settings.tls_server_name or None, proxy,
        )  # fmt: skip

    async def door() -> Access:
        return await asyncio.to_thread(read)

    return door


def _tls(settings: Any) -> ssl.SSLContext | bool:
    if not settings.host.startswith("https"):
        return True
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert or None)
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file or None)
    except (OSError, ValueError) as error:
        raise UnreachableError(
            f"the certificates for {settings.host} cannot be used", f"{type(error).__name__}: {error}",
            "check certificate-authority, client-certificate and client-key in the kubeconfig",
        ) from error  # fmt: skip
    if not settings.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class ApiServer:
    """One API server."""

    def __init__(self, session: aiohttp.ClientSession, door: Door, count: Count) -> None:
        self._session = session
        self._door = door
        self._count = count

    async def list(self, resource: Resource, version: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        """Return one page of a list.

        Raises:
            RefusedError: when the server answers with anything else; `GoneError` when it is a page of a lost list.
            UnreachableError: when it does not answer within 10 s, or not with a document.
        """
        async with self._ask("list", resource, version, query, LIST_TIMEOUT_S) as response:
            content = await response.read()
        found = json.loads(content)
        if not isinstance(found, Mapping):
            raise ValueError("the answer is no object")  # noqa: TRY004 - a document's shape, not a caller's type
        return found

    async def watch(
        self, resource: Resource, version: str, query: Mapping[str, str], begun: Callable[[], None]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """Give the lines of a watch until the server ends it; raises as `list` does, also in the middle.

        Args:
            resource: what to watch.
            version: of its API.
            query: the place from which to watch.
            begun: called when the server has taken the watch.
        """
        async with self._ask("watch", resource, version, query, WATCH_S + WATCH_GRACE_S) as response:
            begun()
            rest = b""
            async for block in response.content.iter_any():
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield json.loads(line)
                if len(rest) > MAX_LINE_BYTES:
                    raise ValueError("a line of the watch has no end")

    @asynccontextmanager
    async def _ask(
        self, verb: str, resource: Resource, version: str, query: Mapping[str, str], within_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        access = await self._door()
        limit = aiohttp.ClientTimeout(total=within_s, sock_connect=CONNECT_TIMEOUT_S)
        url = f"{access.url}{resource.path(version)}?{urlencode({**dict(resource.query), **query})}"
        code = "unreachable"
        try:
            async with self._session.get(
                url, headers=access.headers, ssl=access.tls, timeout=limit, allow_redirects=False, proxy=access.proxy,
                server_hostname=access.server_name,
            ) as response:  # fmt: skip
                code = str(response.status)
                self._count(verb, resource.plural, code)
                if response.status != 200:
                    raise await _refused(response, verb, resource, access)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if code == "unreachable":
                self._count(verb, resource.plural, code)
            raise _unreachable(access, error) from error


async def _refused(response: aiohttp.ClientResponse, verb: str, resource: Resource, access: Access) -> Exception:
    """Say what a refusal means, and the way out."""
    status, content = response.status, await response.content.read(64 * 1024)
    try:
        said = str(json.loads(content)["message"])
    except (ValueError, TypeError, LookupError):
        said = content.decode("utf-8", "replace")[:200]
    if status == 410:
        return GoneError(said)
    wait = response.headers.get("retry-after", "")
    wait_s = min(MAX_WAIT_S, float(wait)) if wait.isdigit() else 0.0
    what, fix = f"the API server refuses to {verb} {resource.where} ({status})", f"kubectl get {resource.plural} -v 6"
    if status == 403:
        kind = "Role" if resource.namespace else "ClusterRole"
        group = resource.versions[0].rpartition("/")[0] or resource.group
        rule = f'apiGroups ["{group}"], resources ["{resource.plural}"], verbs ["list", "watch"]'
        fix = f"give this account a {kind} with {rule}"
    elif status == 401:
        ended = await asyncio.to_thread(_ended, access.certificate)
        said = f"the client certificate {access.certificate} ended at {ended:%Y-%m-%d %H:%M} UTC" if ended else said
        fix = "renew the certificate" if ended else "renew the token or the certificate in the kubeconfig"
    elif status == 404:
        fix = f"see whether this cluster has {resource.plural}: kubectl api-resources"
    return RefusedError(status, wait_s, what, said, fix)


def _ended(certificate: str) -> datetime | None:
    """Return when a client's certificate ended; None where it has not, or there is none."""
    try:
        at = ends_at(Path(certificate).read_text(encoding="ascii")) if certificate else None
    except (OSError, ValueError):
        return None
    return at if at and at < datetime.now(tz=UTC) else None


def _unreachable(access: Access, error: Exception) -> UnreachableError:
    said = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    what, why = f"cannot ask the API server {access.url}", f"{type(error).__name__}: {str(said)[:200]}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        if "expired" in str(error):
            return UnreachableError(what, f"its certificate has expired: {error}", "renew the API server's certificate")
        return UnreachableError(what, why, "name the authority that signed it in the kubeconfig")
    return UnreachableError(what, why, "see whether it runs, and whether this machine reaches it")


# -- following ---------------------------------------------------------------------------------------------------------


class Followed:
    """One kind of object, followed: what it said last, and how fresh that is."""

    def __init__(self, resource: Resource, take: Callable[[Change], None], settled: Callable[[], None]) -> None:
        """Take what is followed.

        Args:
            resource: which objects.
            take: takes every change in; must be quick.
            settled: called when it is first known whether they can be followed.
        """
        self.resource = resource
        self.trouble: UnreachableError | None = None
        """What keeps it from being fresh; None while nothing does."""
        self.synced = False
        """A whole list has come once."""
        self.tried = asyncio.Event()
        """It was tried once, and either a list came or it was told why not."""
        self._take = take
        self._settled = settled
        self._versions = list(resource.versions)
        self._state = Following()
        self._heard = monotonic()
        self._standing = False

    def silent_s(self) -> float:
        """Return for how many seconds nothing has been heard; 0 while a watch stands."""
        return 0.0 if self._standing else monotonic() - self._heard

    async def follow(self, api: ApiServer) -> None:
        """Follow it; ends only by being cancelled."""
        while True:
            try:
                await self._once(api)
            except GoneError:
                self._state.gone()
            except (UnreachableError, aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                await asyncio.sleep(self._failed(error))

    async def _once(self, api: ApiServer) -> None:
        ask = self._state.ask()
        if ask.verb == "list":
            self._changed(self._state.listed(await api.list(self.resource, self._versions[0], ask.query)))
            if self._state.version:
                self.synced, self.trouble, self._heard = True, None, monotonic()
                self._tried()
            return
        try:
            async with aclosing(api.watch(self.resource, self._versions[0], ask.query, self._begun)) as lines:
                async for line in lines:
                    self._changed(self._state.told(line))
        finally:
            self._standing, self._heard = False, monotonic() if self._standing else self._heard

    def _begun(self) -> None:
        self._standing, self.trouble = True, None

    def _tried(self) -> None:
        if not self.tried.is_set():
            self.tried.set()
            self._settled()

    def _changed(self, change: Change | None) -> None:
        if change:
            self._take(change)

    def _failed(self, error: Exception) -> float:
        """Note a failure; returns how long to pause."""
        not_here = isinstance(error, RefusedError) and error.status == 404
        if not_here and not self.synced and len(self._versions) > 1:
            self._versions.append(self._versions.pop(0))
            if self._versions[0] != self.resource.versions[0]:
                return 0.0  # An older version is tried at once.
        if not isinstance(error, UnreachableError):
            error = UnreachableError(
                f"the API server's answer about {self.resource.where} makes no sense",
                f"{type(error).__name__}: {str(error)[:200]}",
                "see whether something else answers at its address",
            )  # fmt: skip
        if self.trouble is None or self.trouble.what != error.what:
            log.warning("not followed", what=error.what, why=error.why, fix=error.fix)
        self.trouble = error
        self._tried()
        return self._state.failed(random(), error.wait_s if isinstance(error, RefusedError) else 0.0)  # noqa: S311


async def follow_all(followed: tuple[Followed, ...], api: ApiServer) -> None:
    """Follow several kinds of one server; ends only by being cancelled."""
    async with asyncio.TaskGroup() as group:
        for one in followed:
            group.create_task(one.follow(api))
