"""A Kubernetes API server, through the official client: reads and patches of one object, each with a deadline.

The client is blocking, so it is asked in threads. It is imported when the first cluster is: it takes longer than all
the rest of the control plane together.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.errors import ActuatorError, UnreachableError
from controlplane.fleet.kubeconfig import settings_of

Document = dict[str, Any]

FIELD_MANAGER = "controlplane"
"""Who we are in an object's `managedFields`."""
CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 5.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, by where the API serves it."""

    group: str
    version: str
    plural: str


class RefusedError(Exception):
    """The API server answered, and it was a refusal."""

    def __init__(self, status: int, message: str, details: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.details = details

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


class Cluster:
    """One API server."""

    def __init__(self, kubeconfig: str = "", context: str = "") -> None:
        """Take the cluster; it is asked only when something is.

        Args:
            kubeconfig: a file; empty means the pod's own service account, or else what `kubectl` would use.
            context: a context of that file; empty means its current one.
        """
        self._kubeconfig = kubeconfig
        self._context = context
        self._objects: Any = None

    async def read(self, kind: Kind, namespace: str, name: str) -> Document:
        """Return an object.

        Raises:
            RefusedError: when it is not there, or may not be read.
            ActuatorError: when the API server cannot be asked.
        """
        return await self._ask("get_namespaced_custom_object", kind, namespace, name)

    async def read_scale(self, kind: Kind, namespace: str, name: str) -> Document:
        """Return an object's scale; raises as `read` does."""
        return await self._ask("get_namespaced_custom_object_scale", kind, namespace, name)

    async def every(self, kind: Kind, namespace: str) -> list[Document]:
        """Return the objects of a kind in a namespace; raises as `read` does."""
        found = await self._ask("list_namespaced_custom_object", kind, namespace)
        return list(found.get("items") or ())

    async def apply(
        self, kind: Kind, namespace: str, name: str, body: Document, *, force: bool, dry_run: bool
    ) -> Document:
        """Apply our fields of an object, server-side, strictly validated; raises as `read` does."""
        more = {"force": force, "field_validation": "Strict", **_dry(dry_run)}
        return await self._ask(
            "patch_namespaced_custom_object", kind, namespace, name, body,
            field_manager=FIELD_MANAGER, _content_type=APPLY, **more,
        )  # fmt: skip

    async def merge(
        self, kind: Kind, namespace: str, name: str, body: Document, *, scale: bool = False, dry_run: bool = False
    ) -> Document:
        """Merge fields into an object, or into its scale; raises as `read` does."""
        method = "patch_namespaced_custom_object_scale" if scale else "patch_namespaced_custom_object"
        return await self._ask(
            method, kind, namespace, name, body, field_manager=FIELD_MANAGER, _content_type=MERGE, **_dry(dry_run)
        )

    async def _ask(self, method: str, kind: Kind, namespace: str, *rest: Any, **options: Any) -> Document:
        return await asyncio.to_thread(self._call, method, kind, namespace, rest, options)

    def _call(
        self, method: str, kind: Kind, namespace: str, rest: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Document:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - see the module
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            if self._objects is None:
                self._objects = self._connect()
            ask: Callable[..., Document] = getattr(self._objects, method)
            return ask(
                kind.group, kind.version, namespace, kind.plural, *rest,
                _request_timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), **options,
            )  # fmt: skip
        except ApiException as error:
            raise _refused(error) from error
        except UnreachableError as error:
            raise ActuatorError(error.what, error.why, error.fix) from error
        except (HTTPError, OSError, ValueError, TypeError) as error:
            raise ActuatorError(
                "cannot ask the Kubernetes API server", f"{type(error).__name__}: {error}",
                "check the kubeconfig and its context, and that the API server answers",
            ) from error  # fmt: skip

    def _connect(self) -> Any:
        from kubernetes import client  # noqa: PLC0415

        return client.CustomObjectsApi(client.ApiClient(settings_of(self._kubeconfig, self._context)))


def _dry(dry_run: bool) -> dict[str, str]:  # noqa: FBT001 - one flag, named at both calls
    return {"dry_run": "All"} if dry_run else {}


def _refused(error: Any) -> RefusedError:
    """Read the `Status` that an API server refuses with."""
    try:
        status = json.loads(error.body)
        return RefusedError(error.status, str(status["message"]), status.get("details") or {})
    except (ValueError, TypeError, LookupError):
        return RefusedError(error.status or 0, str(error.body or error.reason), {})
