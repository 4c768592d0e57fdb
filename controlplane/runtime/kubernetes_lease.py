"""Who is in charge, by a Lease of Kubernetes (`coordination.k8s.io/v1`): another book for `runtime/leader`.

The Lease says who it is; the database is told the number of each term before anything is done in it, so that whatever
the database fences (receipts, drills, leases of faults, every move of a lever) is fenced here too. Whether a Lease has
run out is judged by our own clock: by how long we have seen it unchanged. The times that are written into it are for
people.
"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import structlog

from controlplane.clock import utcnow
from controlplane.degradation.fencing import Held, Term
from controlplane.errors import UnreachableError
from controlplane.runtime.leader import TermBook
from controlplane.settings import LeasePlace

GROUP, VERSION, PLURAL = "coordination.k8s.io", "v1", "leases"
CONNECT_WITHIN_S, READ_WITHIN_S = 1.0, 1.5
"""A request that takes longer is given up: two of them fit into the life of a Lease."""
ANSWER_WITHIN_S = 2.0
"""The same with everything around it, such as a name that is not resolved."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod reads which namespace it is in."""

Document = dict[str, Any]

log = structlog.get_logger("leader")


class Leases(Protocol):
    """One Lease at an API server."""

    async def read(self) -> Document | None:
        """Return it; None when there is none.

        Raises:
            UnreachableError: when the API server does not answer, or refuses.
        """

    async def write(self, lease: Document) -> Document | None:
        """Create it, or replace exactly the version that it names; None when somebody else was first.

        Raises:
            UnreachableError: as `read`.
        """


class Ledger(TermBook, Protocol):
    """The database's own lease, which fences."""

    async def take(self, service: str, holder: str, ttl_s: float, token: int = 0) -> Term | Held:
        """Take the lease with a number that was given elsewhere; it must be larger than any before."""

    async def newest(self, service: str) -> Term:
        """Return the newest term there was."""


class KubernetesTerms:
    """The lease of a service, kept by an API server and noted in the database."""

    def __init__(
        self, leases: Leases, ledger: Ledger, clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = utcnow,
    ) -> None:  # fmt: skip
        """Take what it works with.

        Args:
            leases: the Lease.
            ledger: what the database knows of terms.
            clock: monotonic seconds, by which a Lease runs out.
            now: aware UTC, for people who read the Lease.
        """
        self._leases = leases
        self._ledger = ledger
        self._clock = clock
        self._now = now
        self._seen: Mapping[str, Any] | None = None
        self._seen_at = 0.0
        self._ours: Document | None = None

    async def take(self, service: str, holder: str, ttl_s: float) -> Term | Held:
        """Take the Lease if it is free, or was left unchanged for as long as it holds, or is ours from an earlier life.

        The term's number is `leaseTransitions`, which is larger than any before, the database's included: a Lease that
        somebody deleted begins behind it, and not at 1.

        Raises:
            UnreachableError: when the API server does not answer, or refuses.
            StoreError: when the database refuses.
        """
        found = await self._leases.read()
        left_s = self._left_s(found, ttl_s)
        held_by = _holder(found)
        if held_by not in ("", holder) and left_s > 0:
            return Held(held_by, left_s)
        newest = await self._ledger.newest(service)
        token = max(_transitions(found), newest.token) + 1
        written = await self._leases.write(self._lease(found, holder, ttl_s, token))
        if written is None:
            return Held("", 0.0)
        self._ours = written
        taken = await self._ledger.take(service, holder, ttl_s, token)
        if isinstance(taken, Held):
            log.warning("the Lease is ours, the database's lease is not", holder=taken.holder, left_s=taken.left_s)
        return taken

    async def renew(self, term: Term, ttl_s: float) -> bool:
        """Hold on to the Lease; False when it is somebody else's, or gone.

        Raises:
            UnreachableError: when the API server does not answer, or refuses.
            StoreError: when the database refuses.
        """
        written = await self._leases.write(self._renewed(self._ours)) if self._ours else None
        if written is None:  # Somebody has changed it: a label perhaps, and not the holder.
            found = await self._leases.read()
            if found is None or (_holder(found), _transitions(found)) != (term.holder, term.token):
                return False
            written = await self._leases.write(self._renewed(found))
            if written is None:
                return False
        self._ours = written
        return await self._ledger.renew(term, ttl_s)

    async def resign(self, term: Term) -> None:
        """Let go of both, the database's first: whoever takes the Lease then finds it free.

        Raises:
            UnreachableError: when the API server does not answer, or refuses; the Lease then runs out.
            StoreError: when the database refuses.
        """
        await self._ledger.resign(term)
        if self._ours and await self._leases.write(self._freed(self._ours)) is None:
            found = await self._leases.read()  # Somebody has changed it: a label perhaps, and not the holder.
            if found and (_holder(found), _transitions(found)) == (term.holder, term.token):
                await self._leases.write(self._freed(found))
        self._ours = None

    async def confirm(self, term: Term) -> None:
        """Make sure that a term still is the newest, by the database: nobody acts in a term that it was not told of.

        Raises:
            FencedError: when it is not.
        """
        await self._ledger.confirm(term)

    def _left_s(self, found: Document | None, ttl_s: float) -> float:
        """Return for how long a Lease holds on, by our clock; what is seen for the first time has all of it left."""
        now, spec = self._clock(), found["spec"] if found else {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, now
        return self._seen_at + max(ttl_s, float(spec.get("leaseDurationSeconds") or 0)) - now

    def _lease(self, found: Document | None, holder: str, ttl_s: float, token: int) -> Document:
        at = _spell(self._now())
        spec = {
            "holderIdentity": holder, "leaseDurationSeconds": ceil(ttl_s), "leaseTransitions": token,
            "acquireTime": at, "renewTime": at,
        }  # fmt: skip
        if found is None:
            return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Lease", "metadata": {}, "spec": spec}
        return {**found, "spec": {**found["spec"], **spec}}

    def _renewed(self, lease: Document) -> Document:
        return {**lease, "spec": {**lease["spec"], "renewTime": _spell(self._now())}}

    def _freed(self, lease: Document) -> Document:
        renewed = self._renewed(lease)
        return {**renewed, "spec": {**renewed["spec"], "holderIdentity": ""}}


def _holder(lease: Document | None) -> str:
    return str(lease["spec"].get("holderIdentity") or "") if lease else ""


def _transitions(lease: Document | None) -> int:
    return int(lease["spec"].get("leaseTransitions") or 0) if lease else 0


def _spell(at: datetime) -> str:
    """Write a time as Kubernetes writes a MicroTime."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LeaseApi:
    """A Lease at a real API server, through the official client, one request at a time in a thread of its own.

    The pool of threads that everybody shares may be full of others who wait for the same server.
    """

    def __init__(self, place: LeasePlace) -> None:
        self._place = place
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lease")
        self._objects: Any = None
        self._namespace = place.namespace

    async def read(self) -> Document | None:
        """Return the Lease; None when there is none.

        Raises:
            UnreachableError: when the API server does not answer, or refuses.
        """
        return await self._ask("get_namespaced_custom_object", self._place.name, none_for=404)

    async def write(self, lease: Document) -> Document | None:
        """Create the Lease, or replace exactly the version that it names; None when somebody else was first.

        Raises:
            UnreachableError: as `read`.
        """
        if not lease["metadata"]:
            made = {**lease, "metadata": {"name": self._place.name}}
            return await self._ask("create_namespaced_custom_object", made, none_for=409)
        return await self._ask("replace_namespaced_custom_object", self._place.name, lease, none_for=409)

    async def _ask(self, method: str, *given: Any, none_for: int) -> Document | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await loop.run_in_executor(self._thread, self._call, method, given, none_for)
        except TimeoutError as error:
            raise _unreachable(f"no answer within {ANSWER_WITHIN_S:g} s") from error

    def _call(self, method: str, given: tuple[Any, ...], none_for: int) -> Document | None:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - slow, and not everybody needs it
        from kubernetes.config import ConfigException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            if self._objects is None:
                self._objects = self._connect()
            ask: Callable[..., Document] = getattr(self._objects, method)
            return ask(
                GROUP, VERSION, self._namespace, PLURAL, *given, _request_timeout=(CONNECT_WITHIN_S, READ_WITHIN_S)
            )
        except ApiException as error:
            if error.status == none_for:
                return None
            if error.status == 401:
                self._objects = None  # Tokens and certificates are renewed in their files: the next turn reads them.
            raise self._refused(error, method) from error
        except (HTTPError, ConfigException, OSError, ValueError, TypeError) as error:
            self._objects = None
            raise _unreachable(f"{type(error).__name__}: {error}") from error

    def _refused(self, error: Any, method: str) -> UnreachableError:
        verb = method.partition("_")[0].replace("replace", "update")
        try:
            said = str(json.loads(error.body)["message"])
        except (ValueError, TypeError, LookupError):
            said = str(error.body or error.reason)
        where = f"Lease {self._namespace}/{self._place.name}"
        fix = f"allow this account to {verb} `{PLURAL}` of `{GROUP}` in namespace {self._namespace}"
        return UnreachableError(
            f"the API server refuses the {where}", f"{error.status} {said}", fix if error.status == 403 else "see why"
        )

    def _connect(self) -> Any:
        from kubernetes import client, config  # noqa: PLC0415

        loaders: Any = config  # The client is not typed.
        settings, inside = client.Configuration(), ""
        try:
            loaders.load_incluster_config(client_configuration=settings)
            inside = NAMESPACE_FILE.read_text(encoding="utf-8").strip() if NAMESPACE_FILE.exists() else ""
        except config.ConfigException:
            file = os.environ.get("KUBECONFIG") or None  # The client looks there once, when it is imported.
            loaders.load_kube_config(file, client_configuration=settings)
            inside = str(loaders.list_kube_config_contexts(file)[1]["context"].get("namespace") or "")
        self._namespace = self._namespace or inside or "default"
        settings.retries = 0
        return client.CustomObjectsApi(client.ApiClient(settings))


def _unreachable(why: str) -> UnreachableError:
    return UnreachableError(
        "the Kubernetes API server cannot be asked for the Lease", why,
        "check the kubeconfig and its context, and that the API server answers",
    )  # fmt: skip
