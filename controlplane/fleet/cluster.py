"""A Kubernetes API server, through the official client's connection: one request at a time, each with a deadline.

Levers and faults ask it, each with an error of their own for a server that cannot be asked. The client is blocking, so
it is asked in threads. It is imported when the first cluster is: it takes longer than all the rest of the control plane
together. Kinds are named by where the API serves them, so that built-in and custom ones are asked in the same way.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from controlplane.errors import ControlplaneError, UnreachableError
from controlplane.fleet.kubeconfig import settings_of

Document = dict[str, Any]

T = TypeVar("T")

MOST_TRIES = 4
"""How often an object that changes under our hands is read and changed anew."""
FIELD_MANAGER = "controlplane"
"""Who we are in an object's `managedFields`."""
CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON = "application/json"
STRICT = {"fieldValidation": "Strict"}
"""Unknown fields are refused by servers that can tell (1.25 and later); others ignore the wish."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, by where the API serves it."""

    group: str
    """Empty is the core group."""
    version: str
    plural: str
    namespaced: bool = True

    @property
    def served_at(self) -> str:
        """Return the path of its version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def api_version(self) -> str:
        """Return what an object of it says as its `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """Return what a role calls it, such as `networkpolicies.networking.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS = Kind("", "v1", "pods")
NODES = Kind("", "v1", "nodes", namespaced=False)
NAMESPACES = Kind("", "v1", "namespaces", namespaced=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of an API server, in the words of its roles."""

    verb: str = ""
    """`get`, `list`, `create`, `patch` or `delete`."""
    resource: str = ""
    """Such as `pods/eviction`, or `jobs.batch`."""
    namespace: str = ""
    """Empty for what belongs to no namespace."""

    def __str__(self) -> str:
        """Write it as a person would say it."""
        return f"{self.verb} {self.resource}{f' in namespace {self.namespace}' if self.namespace else ''}"


class RefusedError(Exception):
    """The API server answered, and it was a refusal."""

    def __init__(self, status: int, message: str, details: Mapping[str, Any], asked: Asked | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details
        self.asked = asked or Asked()

    @property
    def owners(self) -> tuple[str, ...]:
        """The other owners of the fields that we want; empty when it is no conflict of owners."""
        causes = [c for c in self.details.get("causes") or () if c.get("reason") == "FieldManagerConflict"]
        quoted = [str(cause.get("message", "")).split('"') for cause in causes]
        return tuple(sorted({parts[1] if len(parts) > 2 else "somebody else" for parts in quoted}))

    @property
    def no_such_api(self) -> bool:
        """Tell a server that does not serve this kind from an object that is not there."""
        return self.status == 404 and not self.details.get("name")

    @property
    def denied(self) -> str:
        """What this account may not do, by verb, resource and namespace; empty when it is no denial."""
        return f"this account may not {self.asked}" if self.status == 403 and self.asked.verb else ""

    @property
    def why(self) -> str:
        """The answer in one line; a denial names its verb, resource and namespace first."""
        return f"{self.denied}: {self.message}" if self.denied else f"{self.status} {self.message}"


async def anew(change: Callable[[], Awaitable[T]]) -> T:
    """Read and change an object, anew where it changed in between: an autoscaler's status does every few seconds.

    Raises:
        RefusedError: when the change is refused for another reason, or the object changes again and again.
    """
    for left in reversed(range(MOST_TRIES)):
        try:
            return await change()
        except RefusedError as refused:
            if refused.status != 409 or refused.owners or not left:
                raise
    raise AssertionError("unreachable")  # pragma: no cover


class Cluster:
    """One API server."""

    def __init__(
        self,
        kubeconfig: str = "",
        context: str = "",
        trouble: type[ControlplaneError] = UnreachableError,
        count: Callable[[str, str, str], None] | None = None,
    ) -> None:
        """Take the cluster; it is asked only when something is.

        Args:
            kubeconfig: a file; empty means the pod's own service account, or else what `kubectl` would use.
            context: a context of that file; empty means its current one.
            trouble: what is raised when the API server cannot be asked.
            count: called with the verb, the resource and the answer of each request that nobody cancelled: its
                status, or `unreachable`.
        """
        self._kubeconfig = kubeconfig
        self._context = context
        self._trouble = trouble
        self._client: Any = None
        self._count = count

    async def read(self, kind: Kind, namespace: str, name: str) -> Document:
        """Return an object.

        Raises:
            RefusedError: when it is not there, or may not be read.
            ControlplaneError: of the kind given as `trouble`, when the API server cannot be asked.
        """
        return await self._ask("get", kind, namespace, name)

    async def read_scale(self, kind: Kind, namespace: str, name: str) -> Document:
        """Return an object's scale; raises as `read` does."""
        return await self._ask("get", kind, namespace, name, part="scale")

    async def every(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Document]:
        """Return the objects of a kind in a namespace, or in all of them; raises as `read` does.

        Args:
            kind: what is listed.
            namespace: empty is every namespace.
            labels: a label selector.
            fields: a field selector.
        """
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        found = await self._ask("list", kind, namespace, query=query)
        return list(found.get("items") or ())

    async def serves(self, kind: Kind) -> bool:
        """Tell whether the server knows a kind, by its own discovery; raises as `read` does."""
        try:
            found = await self._run("GET", kind.served_at, {}, None, JSON, Asked("get", kind.served_at))
        except RefusedError as refused:
            if refused.status == 404:
                return False
            raise
        return any(one.get("name") == kind.plural for one in found.get("resources") or ())

    async def create(
        self, kind: Kind, namespace: str, body: Document, *, name: str = "", part: str = "", dry_run: bool = False
    ) -> Document:
        """Create an object, or a part of one such as a pod's `eviction`; raises as `read` does."""
        query = {"fieldManager": FIELD_MANAGER, **STRICT, **_dry(dry_run)}
        return await self._ask("create", kind, namespace, name, body, query, part=part)

    async def apply(
        self, kind: Kind, namespace: str, name: str, body: Document, *, force: bool, dry_run: bool = False
    ) -> Document:
        """Apply our fields of an object, server-side, strictly validated; raises as `read` does."""
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), **STRICT, **_dry(dry_run)}
        return await self._ask("patch", kind, namespace, name, body, query, content=APPLY)

    async def merge(
        self, kind: Kind, namespace: str, name: str, body: Document, *, scale: bool = False, dry_run: bool = False
    ) -> Document:
        """Merge fields into an object, or into its scale; raises as `read` does."""
        query = {"fieldManager": FIELD_MANAGER, **_dry(dry_run)}
        return await self._ask(
            "patch", kind, namespace, name, body, query, part="scale" if scale else "", content=MERGE
        )

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "", grace_s: int | None = None) -> bool:
        """Delete an object and, in the background, what belongs to it; raises as `read` does.

        Args:
            kind: of what kind it is.
            namespace: where it is.
            name: what it is called.
            uid: only this very object; another one of the same name is left alone.
            grace_s: seconds that a pod has to end by itself; None is what the pod says.

        Returns:
            False when it was not there.
        """
        body: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            await self._ask("delete", kind, namespace, name, body)
        except RefusedError as refused:
            if refused.status in (404, 409):  # 409: the name is another object's by now.
                return False
            raise
        return True

    async def _ask(
        self, verb: str, kind: Kind, namespace: str, name: str = "", body: Document | None = None,
        query: Mapping[str, str] | None = None, *, part: str = "", content: str = JSON,
    ) -> Document:  # fmt: skip
        where = f"/namespaces/{quote(namespace)}" if kind.namespaced and namespace else ""
        path = "/".join([f"{kind.served_at}{where}", kind.plural, *(quote(p) for p in (name, part) if p)])
        resource = f"{kind.plural}/{part}{f'.{kind.group}' if kind.group else ''}" if part else kind.resource
        asked = Asked(verb, resource, namespace if kind.namespaced else "")
        method = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}[verb]
        return await self._run(method, path, query or {}, body, content, asked)

    async def _run(
        self, method: str, path: str, query: Mapping[str, str], body: Document | None, content: str, asked: Asked
    ) -> Document:
        try:
            found = await asyncio.to_thread(self._call, method, path, query, body, content, asked)
        except RefusedError as refused:
            self._counted(asked, str(refused.status))
            raise
        except ControlplaneError:
            self._counted(asked, "unreachable")
            raise
        self._counted(asked, "200")
        return found

    def _counted(self, asked: Asked, answer: str) -> None:
        if self._count:
            self._count(asked.verb, asked.resource, answer)

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Document | None, content: str, asked: Asked
    ) -> Document:
        """Ask; credentials that are refused are read anew: tokens and certificates are renewed in their files."""
        kept = self._client is not None
        try:
            return self._send(method, path, query, body, content, asked)
        except RefusedError as refused:
            if refused.status != 401 or not kept:
                raise
        except ControlplaneError:
            self._client = None
            raise
        self._client = None
        return self._send(method, path, query, body, content, asked)

    def _send(
        self, method: str, path: str, query: Mapping[str, str], body: Document | None, content: str, asked: Asked
    ) -> Document:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - see the module
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            # Another request, in a thread of its own, may give the client up at any moment: this one keeps its own.
            client = self._client or self._connect()
            self._client = client
            settings = client.configuration
            headers = {"Accept": JSON, "Content-Type": content, "User-Agent": FIELD_MANAGER}
            known = [one for one in settings.auth_settings().values() if one["in"] == "header" and one["value"]]
            headers |= {one["key"]: one["value"] for one in known}
            url = f"{settings.host}{path}{f'?{urlencode(query)}' if query else ''}"
            # The client writes JSON by itself, and takes other texts as they are.
            sent = json.dumps(body) if content == APPLY else body
            answer = client.rest_client.request(
                method, url, headers=headers, body=sent, _request_timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
            )
            text = answer.data if answer.data is not None else answer.read()
        except ApiException as error:
            if not error.status:  # No answer at all: a certificate that is not trusted, for one.
                raise self._no_answer(error.reason) from error
            raise _refused(error.status, error.body or error.reason, asked) from error
        except UnreachableError as error:
            raise self._trouble(error.what, error.why, error.fix) from error
        except (HTTPError, OSError, ValueError, TypeError) as error:
            raise self._no_answer(f"{type(error).__name__}: {error}") from error
        if not 200 <= answer.status < 300:
            raise _refused(answer.status, text or answer.reason, asked)
        try:
            found: Document = json.loads(text)
        except ValueError as error:
            raise self._no_answer(f"its answer is no JSON: {error}") from error
        return found

    def _no_answer(self, why: object) -> ControlplaneError:
        return self._trouble(
            "cannot ask the Kubernetes API server", str(why).strip(),
            "check the kubeconfig and its context, and that the API server answers",
        )  # fmt: skip

    def _connect(self) -> Any:
        from kubernetes import client  # noqa: PLC0415

        return client.ApiClient(settings_of(self._kubeconfig, self._context))


def _dry(dry_run: bool) -> dict[str, str]:  # noqa: FBT001 - one flag, named at every call
    return {"dryRun": "All"} if dry_run else {}


def _refused(status: int, body: object, asked: Asked) -> RefusedError:
    """Read the `Status` that an API server refuses with."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        said = json.loads(text)
        return RefusedError(status, str(said["message"]), said.get("details") or {}, asked)
    except (ValueError, TypeError, LookupError):
        return RefusedError(status, text, {}, asked)
