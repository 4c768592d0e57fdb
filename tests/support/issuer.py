"""A small OpenID Connect provider that signs real tokens; tests say what stands in them."""

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from joserfc import jwk, jwt

CLIENT_ID = "controlplane"
CLIENT_SECRET = "the-client's-secret"


@dataclass(slots=True)
class Issuer:
    """The provider: who logs in there is `claims`, at once and without a page."""

    url: str = ""
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "u1", "groups": ["controlplane-operator"]})
    header: dict[str, Any] = field(default_factory=lambda: {"alg": "RS256", "kid": "one"})
    key: Any = field(default_factory=lambda: jwk.RSAKey.generate_key(2048, {"kid": "one"}))
    foreign: Any = None
    """Signs instead of `key`, which is all that the provider's key set holds."""
    pending: dict[str, tuple[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        """Make the application."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        return app

    async def _discovery(self, _: web.Request) -> web.Response:
        self.asked.append("discovery")
        return web.json_response(
            {
                "issuer": self.url, "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token", "jwks_uri": f"{self.url}/jwks",
            }
        )  # fmt: skip

    async def _jwks(self, _: web.Request) -> web.Response:
        self.asked.append("jwks")
        return web.json_response({"keys": [self.key.as_dict(private=False)]})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = request.query
        assert (asked["client_id"], asked["code_challenge_method"]) == (CLIENT_ID, "S256")
        code = secrets.token_urlsafe(8)
        self.pending[code] = asked["nonce"], asked["code_challenge"]
        back = urlencode({"code": code, "state": asked["state"]})
        return web.Response(status=302, headers={"location": f"{asked['redirect_uri']}?{back}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        nonce, challenge = self.pending.pop(str(form["code"]), ("", ""))
        hashed = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        proven = base64.urlsafe_b64encode(hashed).decode().rstrip("=") == challenge
        if not proven or request.headers.get("authorization") != f"Basic {basic}":
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        said = {"iss": self.url, "aud": CLIENT_ID, "iat": now, "exp": now + 60, "nonce": nonce} | self.claims
        signed = jwt.encode(self.header, said, self.foreign or self.key, algorithms=["RS256", "HS256"])
        return web.json_response({"access_token": "a", "token_type": "Bearer", "id_token": signed})
