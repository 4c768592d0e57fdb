"""A small Kubernetes API server: lists, watches that stream, and `410 Gone`; on 127.0.0.1 only."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Object = dict[str, Any]


def pod(name: str, *, ip: str = "", node: str = "", restarts: int = 0, ended: str = "", waiting: str = "", placed: bool = True, ready: bool = True) -> Object:  # fmt: skip # noqa: E501
    """Return a pod as the API gives it."""
    status: Object = {"podIP": ip, "containerStatuses": [{"restartCount": restarts}]}
    if ended:
        status["containerStatuses"][0]["lastState"] = {"terminated": {"reason": ended, "exitCode": 137}}
    if waiting:
        status["containerStatuses"][0]["state"] = {"waiting": {"reason": waiting}}
    status["conditions"] = [{"type": "Ready", "status": str(ready and placed)}]
    if not placed:
        status["conditions"].append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"})
    return {"metadata": {"name": name}, "spec": {"nodeName": node}, "status": status}


def node(name: str, *, ready: bool = True) -> Object:
    """Return a node as the API gives it."""
    return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": str(ready)}]}}


def event(name: str, reason: str, about: str, message: str = "", count: int = 1) -> Object:
    """Return an event as the API gives it."""
    return {
        "metadata": {"name": name}, "reason": reason, "involvedObject": {"name": about}, "message": message,
        "count": count,
    }  # fmt: skip


class FakeApi:
    """The objects, and who watches them."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, dict[str, Object]] = {"pods": {}, "events": {}, "nodes": {}}
        self.version = 100
        self.oldest = 0
        """Watches from before this version are told 410."""
        self.lists: list[str] = []
        self.tokens: set[str] = set()
        self._history: dict[str, list[tuple[int, Object]]] = {"pods": [], "events": [], "nodes": []}
        """What happened, so that a watch is told what came after its version."""
        self._watchers: dict[str, set[asyncio.Queue[Object | None]]] = {"pods": set(), "events": set(), "nodes": set()}

    def put(self, kind: str, found: Object, what: str = "ADDED") -> None:
        """Add or change an object and tell who watches."""
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        name = found["metadata"]["name"]
        if what == "DELETED":
            self.objects[kind].pop(name, None)
        else:
            self.objects[kind][name] = found
        line = {"type": what, "object": found}
        self._history[kind].append((self.version, line))
        for queue in self._watchers[kind]:
            queue.put_nowait(line)

    def say(self, kind: str, line: Object) -> None:
        """Send any line to who watches."""
        for queue in self._watchers[kind]:
            queue.put_nowait(line)

    def end_watches(self) -> None:
        """End every watch, as the server does after its time."""
        for queues in self._watchers.values():
            for queue in queues:
                queue.put_nowait(None)
            queues.clear()

    def watched(self) -> int:
        """Return how many watches stand; one that was told to end does not."""
        return sum(len(queues) for queues in self._watchers.values())

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer a list or a watch."""
        kind = request.path.rsplit("/", 1)[1]
        self.tokens.add(request.headers.get("authorization", ""))
        if request.query.get("watch"):
            return await self._watch(request, kind)
        self.lists.append(kind)
        items = list(self.objects[kind].values())
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self.version)}})

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        if int(request.query["resourceVersion"]) < self.oldest:
            return web.json_response({"kind": "Status", "code": 410, "reason": "Expired"}, status=410)
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[Object | None] = asyncio.Queue()
        for version, line in self._history[kind]:
            if version > int(request.query["resourceVersion"]):
                queue.put_nowait(line)
        self._watchers[kind].add(queue)
        try:
            while (told := await queue.get()) is not None:
                await response.write(json.dumps(told).encode() + b"\n")
        finally:
            self._watchers[kind].discard(queue)
        return response


@asynccontextmanager
async def fake_api() -> AsyncIterator[FakeApi]:
    """Run the server."""
    api, app = FakeApi(), web.Application()
    app.router.add_get("/{path:.*}", api.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        api.end_watches()
        await runner.cleanup()
