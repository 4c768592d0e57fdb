"""Services that move traffic, in this process: one that takes plans by webhook, and a LiteLLM proxy's admin API."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Run an application; yield its base URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class PlanService:
    """Takes plans as `webhook.py` documents it, and answers completions accordingly."""

    secret: str
    state: Json = field(
        default_factory=lambda: {"weights": {"primary": 100}, "level": "none", "shed": None, "cordoned": []}
    )
    taken: list[Json] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    """Statuses of the next posts, before any is taken."""

    def app(self) -> web.Application:
        """Return the service."""
        app = web.Application()
        app.router.add_get("/plan", self._show)
        app.router.add_post("/plan", self._take)
        app.router.add_post("/v1/completions", self._complete)
        return app

    def _signed(self, request: web.Request, body: bytes) -> bool:
        signed = request.headers["x-controlplane-timestamp"].encode() + b"." + body
        wanted = "v1=" + hmac.new(self.secret.encode(), signed, hashlib.sha256).hexdigest()
        return hmac.compare_digest(wanted, request.headers["x-controlplane-signature"])

    async def _show(self, request: web.Request) -> web.Response:
        if not self._signed(request, b""):
            return web.Response(status=401, text="bad signature")
        return web.json_response({**self.state, "pools": ["primary", "standby", "base"]})

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.keys.append(request.headers["idempotency-key"])
        if not self._signed(request, body):
            return web.Response(status=401, text="bad signature")
        if self.failures:
            return web.Response(status=self.failures.pop(0), text="not now")
        plan = json.loads(body)
        unknown = set(plan["weights"]) - {"primary", "standby", "base"}
        if unknown:
            return web.Response(status=422, text=f"no pool {sorted(unknown)}")
        self.taken.append(plan)
        self.state = {key: plan[key] for key in ("weights", "level", "shed", "cordoned")}
        return web.Response(status=204)

    async def _complete(self, _: web.Request) -> web.Response:
        by = f"{max(self.state['weights'], key=self.state['weights'].__getitem__)}-0"
        return web.json_response({}, headers={"x-served-by": by, "x-degradation-level": self.state["level"]})


DEPLOYMENTS = {"primary": ("p-1", "p-2"), "standby": ("s-1", "s-2", "s-3"), "base": ("b-1",)}


def _models() -> dict[str, Json]:
    return {
        one: {
            "model_name": "chat",
            "litellm_params": {"model": "openai/chat", "weight": 1 if pool == "primary" else 0},
            "model_info": {"id": one, "db_model": True},
        }
        for pool, ids in DEPLOYMENTS.items()
        for one in ids
    }


@dataclass(slots=True)
class LitellmProxy:
    """What the lever uses of a LiteLLM proxy's admin API, as its source has it."""

    key: str
    models: dict[str, Json] = field(default_factory=_models)
    patched: list[str] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    """Deployments that cannot be changed just now."""

    def app(self) -> web.Application:
        """Return the proxy."""
        app = web.Application(middlewares=[self._authorized])
        app.router.add_get("/model/info", self._info)
        app.router.add_patch("/model/{id}/update", self._update)
        app.router.add_post("/v1/completions", self._complete)
        return app

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "invalid key"}, status=401)
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _info(self, _: web.Request) -> web.Response:
        return web.json_response({"data": list(self.models.values())})

    async def _update(self, request: web.Request) -> web.Response:
        one = request.match_info["id"]
        if one not in self.models:
            return web.json_response({"error": {"message": f"Model {one} not found on proxy."}}, status=404)
        if one in self.refuses:
            return web.json_response({"error": {"message": "Cannot edit config-based model."}}, status=400)
        body = await request.json()
        self.patched.append(one)
        found = self.models[one]
        found["litellm_params"].update(body.get("litellm_params", {}))
        # A patch whose `model_info` lacks the id gives the deployment a new one.
        found["model_info"].update({"id": "a new one", **body["model_info"]} if "model_info" in body else {})
        return web.json_response(found)

    async def _complete(self, _: web.Request) -> web.Response:
        by = max(self.models, key=lambda one: self.models[one]["litellm_params"]["weight"])
        return web.json_response({}, headers={"x-litellm-model-id": by})
