"""As much of a Kubernetes API server as a Lease needs: reads, creates, and replaces of the version that is named."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.answering import Answering, answering
from tests.support.kube import refusal


@dataclass(slots=True)
class LeaseServer:
    """What the server holds, and how it is."""

    url: str = ""
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path."""
    asked: list[str] = field(default_factory=list)
    forbidden: bool = False
    hangs: bool = False
    version: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer one request."""
        with self.lock:
            self.asked.append(f"{method} {path}")
            if self.forbidden:
                return refusal(403, "leases.coordination.k8s.io is forbidden")
            if method == "POST":
                path = f"{path}/{body['metadata']['name']}"
                if path in self.kept:
                    return refusal(409, "it exists already")
            elif path not in self.kept:
                return refusal(404, "not found")
            if method == "GET":
                return 200, self.kept[path]
            named = body["metadata"].get("resourceVersion")
            if method == "PUT" and named != self.kept[path]["metadata"]["resourceVersion"]:
                return refusal(409, "the object has been modified")
            self.version += 1
            self.kept[path] = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
            return 201 if method == "POST" else 200, self.kept[path]

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig that leads here, into the namespace `from-context`."""
        path = folder / "kubeconfig"
        page = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [
                {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "from-context"}}
            ],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(page), encoding="utf-8")
        return path


@contextmanager
def lease_server() -> Iterator[LeaseServer]:
    """Run the server."""
    told = LeaseServer()

    class Handler(Answering):
        def _serve(self) -> None:
            body = self.body()
            while told.hangs and not told.ended.wait(0.01):
                pass
            status, answer = told.answer(self.command, self.path.partition("?")[0], json.loads(body) if body else {})
            self.say(json.dumps(answer).encode(), status)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the names that the server calls

    with answering(Handler) as port:
        told.url = f"http://127.0.0.1:{port}"
        try:
            yield told
        finally:
            told.ended.set()
