"""Talking to a lab's API server as its administrator: plain requests, and a watch that is read line by line."""

import json
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.support.processes import until

Object = dict[str, Any]

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"


class Admin:
    """Requests with the certificate of a kubeconfig; connections are kept, for any thread."""

    def __init__(self, kubeconfig: Path) -> None:
        page = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = page["clusters"][0]["cluster"], page["users"][0]["user"]
        parts = urlsplit(cluster["server"])
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._token = user.get("token", "")
        if "client-certificate" in user:
            self._tls.load_cert_chain(user["client-certificate"], user["client-key"])
        self._idle: deque[HTTPSConnection] = deque()

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> tuple[int, Any]:
        """Send one request and return the status and the parsed answer; raises `OSError` where nobody answers."""
        while True:
            kept = self._kept()
            connection = kept or self._connect(10.0)
            try:
                connection.request(method, path, None if body is None else json.dumps(body), self._headers(kind))
                response = connection.getresponse()
                content = response.read()
            except (OSError, HTTPException) as error:
                connection.close()
                if kept is None:  # One that was kept may have been closed meanwhile: then a new one is tried.
                    raise OSError(str(error)) from error
            else:
                self._idle.append(connection)
                return response.status, json.loads(content) if content.startswith(b"{") else content.decode()

    def close(self) -> None:
        """Close every connection that is kept."""
        while kept := self._kept():
            kept.close()

    def must(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """Send one request that has to succeed, and return what came."""
        status, found = self.ask(method, path, body, kind)
        assert status < 300, f"{method} {path}: {status} {found}"
        return found

    def watch(self, path: str, version: str, within_s: float) -> Iterator[Object]:
        """Give what happens after a version, until the server ends it after about so many seconds."""
        with closing(self._connect(within_s + 10.0)) as connection:
            joined = "&" if "?" in path else "?"
            asked = f"{path}{joined}watch=1&resourceVersion={version}&timeoutSeconds={max(1, round(within_s))}"
            connection.request("GET", asked, headers=self._headers("application/json"))
            response = connection.getresponse()
            while line := response.readline():
                yield json.loads(line)

    def allows(self, account: str, asked: Mapping[str, str]) -> bool:
        """Ask the authorizer what a service account may do.

        Args:
            account: as `NAMESPACE:NAME`.
            asked: the `resourceAttributes` of an access review.
        """
        kind = "system:serviceaccount"
        groups = [f"{kind}s", f"{kind}s:{account.partition(':')[0]}", "system:authenticated"]
        review = {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": f"{kind}:{account}", "groups": groups, "resourceAttributes": dict(asked)},
        }  # fmt: skip
        answer = self.must("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(answer["status"]["allowed"])

    def install(self, definition: Object) -> None:
        """Install a kind, if it is not there, and wait until it is served and discovered: two workers see to that."""
        status, answer = self.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
        assert status in (201, 409), answer
        spec = definition["spec"]
        plural = spec["names"]["plural"]
        for version in (one["name"] for one in spec["versions"] if one["served"]):
            until(partial(self._serves, f"/apis/{spec['group']}/{version}", plural), what=f"{plural} are served")

    def _serves(self, version: str, plural: str) -> bool:
        if self.ask("GET", f"{version}/{plural}?limit=1")[0] != 200:
            return False
        status, found = self.ask("GET", version)
        return status == 200 and any(one["name"] == plural for one in found["resources"])

    def _kept(self) -> HTTPSConnection | None:
        """Take a connection that is kept; None when there is none. Other threads take them as well."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _headers(self, kind: str) -> dict[str, str]:
        return {"content-type": kind, **({"authorization": f"Bearer {self._token}"} if self._token else {})}

    def _connect(self, timeout_s: float) -> HTTPSConnection:
        return HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
