"""A real API server for route objects: the one whose kubeconfig `CONTROLPLANE_TEST_CRDSERVER` names, if it does."""

import os
import time
from typing import Any, Self

from tests.support.kube import ATOMIC, PLURALS, ROUTES, Object, definitions

REAL = os.environ.get("CONTROLPLANE_TEST_CRDSERVER", "")
"""A kubeconfig; empty where there is no such server."""


class RealApi:
    """One route object at the server, for as long as it is needed; the kinds it lacks are installed."""

    def __init__(self, kind: str, name: str, owner: str = "controlplane") -> None:
        from kubernetes import client, config  # noqa: PLC0415 - slow, and needed by those who have a server

        settings = client.Configuration()
        loaders: Any = config
        loaders.load_kube_config(REAL, client_configuration=settings)
        self._client = client.ApiClient(settings)
        self._objects = client.CustomObjectsApi(self._client)
        self.name = name
        self._made = ROUTES[kind]()
        self._made["metadata"]["name"] = name
        group, version = self._made["apiVersion"].split("/")
        self._where = (group, version, "default", PLURALS[kind])
        self._owner = owner
        self._rules = ATOMIC[PLURALS[kind]]

    def __enter__(self) -> Self:
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

        crds = ("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        for one in definitions():
            try:
                self._objects.create_cluster_custom_object(*crds, one)
            except ApiException as error:
                if error.status != 409:
                    raise
        deadline = time.monotonic() + 20
        while True:
            try:
                self._apply("team", {k: v for k, v in self._made["spec"].items() if k != self._rules})
                self._apply(self._owner, {self._rules: self._made["spec"][self._rules]})
            except ApiException as error:  # A kind that was just installed is not served at once.
                if error.status != 404 or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return self

    def __exit__(self, *_: object) -> None:
        self._objects.delete_namespaced_custom_object(*self._where, self.name)
        self._client.close()  # type: ignore[no-untyped-call]

    def _apply(self, owner: str, spec: Object) -> None:
        """Give an owner some fields of the object; a field that an owner applies no more is taken out."""
        self._objects.patch_namespaced_custom_object(
            *self._where, self.name, {**self._made, "spec": spec},
            field_manager=owner, force=False, _content_type="application/apply-patch+yaml",
        )  # fmt: skip

    def spec(self) -> Object:
        """Return the object's spec."""
        found: Any = self._objects.get_namespaced_custom_object(*self._where, self.name)
        spec: Object = found["spec"]
        return spec
