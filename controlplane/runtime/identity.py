"""An OpenID Connect provider, asked over HTTP; what its tokens say is judged by Authlib.

The code flow with PKCE and a client secret. Its addresses come from its own discovery document, which is fetched at
the first login, so that a control plane starts while the provider is down.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from controlplane.errors import ControlplaneError, UnreachableError, UsageError
from controlplane.security.roles import Role
from controlplane.security.tokens import OIDC, Principal
from controlplane.settings import OidcFlags
from controlplane.web.oidc import PENDING_S, Begun, OidcPorts

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by the provider's own key. None that is made with a shared secret, and never `none`."""
KEYS_AGAIN_S = 60.0
"""A key that is not known has the provider asked again, but not more often than this."""
LEEWAY_S = 60
"""How far the provider's clock may be from ours, in seconds."""
TIMEOUT = aiohttp.ClientTimeout(total=10)
RANK = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class OidcSettings:
    """How people log in with an identity provider."""

    issuer: str
    """Its address, as it stands in its tokens; https, or http on loopback."""
    client_id: str
    client_secret: str = field(repr=False)
    role_claim: str = "groups"
    """The claim whose values say what somebody may do: a text or a list of texts."""
    roles: Mapping[str, Role] = field(default_factory=lambda: {f"controlplane-{role}": role for role in RANK})
    """Value of that claim -> role; the highest counts, and who has none does not come in."""


def settings_of(flags: OidcFlags) -> OidcSettings:
    """Read what the command line says.

    Raises:
        UsageError: when something does not fit.
    """
    if not flags.client_id or not flags.client_secret_file:
        raise UsageError(
            "an identity provider needs --oidc-client-id and --oidc-client-secret-file",
            "it knows us by that name and believes it by that secret", "give both",
        )  # fmt: skip
    roles: dict[str, Role] = {}
    for text in flags.roles:
        role, _, value = text.partition("=")
        if role not in RANK or not value:
            raise UsageError(f"`{text}` gives nobody a role", "it reads ROLE=VALUE", f"roles: {', '.join(RANK)}")
        roles[value] = Role(role)
    secret = read_secret_file(flags.client_secret_file)
    made = OidcSettings(flags.issuer, flags.client_id, secret, flags.role_claim)
    return replace(made, roles=roles) if roles else made


def read_secret_file(path: Path) -> str:
    """Read a client secret.

    Raises:
        UsageError: when there is none.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", str(error), "make it a readable file with the secret") from error
    if not text:
        raise UsageError(f"{path} is empty", "the identity provider asks for a secret", "write it into the file")
    return text


class OidcProvider:
    """One identity provider."""

    def __init__(self, settings: OidcSettings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._metadata: Mapping[str, Any] = {}
        self._keys: Mapping[str, Any] = {}
        self._keys_at_s = float("-inf")
        parts = urlsplit(settings.issuer)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise UsageError(
                f"the identity provider {settings.issuer} is not reached by https",
                "whoever stands between could let anybody in", "give its https address",
            )  # fmt: skip
        _library()

    @property
    def name(self) -> str:
        """Its host."""
        return urlsplit(self._settings.issuer).hostname or self._settings.issuer

    @property
    def seal_key(self) -> bytes:
        """Made of the client secret, which every control plane of this client has."""
        return hashlib.sha256(b"controlplane login in progress\0" + self._settings.client_secret.encode()).digest()

    async def begin(self, redirect: str, onward: str) -> tuple[str, Begun]:
        """Return where the browser goes to, and what must be remembered until it is back.

        Raises:
            UnreachableError: when the provider does not answer.
        """
        metadata = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        query = {
            "response_type": "code", "client_id": self._settings.client_id, "redirect_uri": redirect,
            "scope": "openid profile email", "state": state, "nonce": nonce,
            "code_challenge": _library().challenge(verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        there = metadata["authorization_endpoint"]
        url = f"{there}{'&' if '?' in there else '?'}{urlencode(query)}"
        return url, Begun(state, nonce, verifier, onward, time.time() + PENDING_S)

    async def finish(self, code: str, redirect: str, begun: Begun) -> Principal:
        """Exchange the code for a signed token and read who it is.

        Raises:
            ControlplaneError: when the token does not hold, or its owner may not come in.
        """
        metadata = await self._discover()
        told = await self._exchange(metadata, code, redirect, begun)
        claims = await self._claims(metadata, told, begun.nonce)
        role = self._role(claims.get(self._settings.role_claim))
        if role is None:
            raise ControlplaneError(
                "you may not come in", f"no value of `{self._settings.role_claim}` stands for a role here",
                "ask whoever runs the identity provider",
            )  # fmt: skip
        subject = str(claims["sub"])
        verified = claims.get("email") if claims.get("email_verified") is True else None
        name = str(claims.get("preferred_username") or verified or subject)
        return Principal(name[:128], role, f"{OIDC}:{subject}"[:255])

    def _role(self, value: Any) -> Role | None:
        values = value if isinstance(value, list) else [value]
        found = [self._settings.roles[one] for one in values if isinstance(one, str) and one in self._settings.roles]
        return max(found, key=RANK.index, default=None)

    async def _exchange(self, metadata: Mapping[str, Any], code: str, redirect: str, begun: Begun) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect,
            "code_verifier": begun.verifier, "client_id": self._settings.client_id,
        }  # fmt: skip
        ways = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth = None
        if "client_secret_basic" in ways:
            auth = aiohttp.encode_basic_auth(self._settings.client_id, self._settings.client_secret)
        else:
            form["client_secret"] = self._settings.client_secret
        headers = {"authorization": auth} if auth else {}
        return await self._ask("POST", metadata["token_endpoint"], data=form, headers=headers)

    async def _claims(self, metadata: Mapping[str, Any], told: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        library = _library()
        for attempt in range(2):
            if not self._keys or (attempt and time.monotonic() - self._keys_at_s > KEYS_AGAIN_S):
                self._keys, self._keys_at_s = await self._ask("GET", metadata["jwks_uri"]), time.monotonic()
            try:
                return library.claims(
                    str(told.get("id_token", "")), self._keys, self._settings.issuer, self._settings.client_id, nonce,
                    told.get("access_token"),
                )  # fmt: skip
            except ValueError as error:
                if attempt:
                    raise ControlplaneError(
                        "what the identity provider says does not hold", str(error), "begin the login anew"
                    ) from error
        raise AssertionError("two attempts end by an answer or an error")

    async def _discover(self) -> Mapping[str, Any]:
        if not self._metadata:
            found = await self._ask("GET", self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
            missing = [n for n in ("authorization_endpoint", "token_endpoint", "jwks_uri") if n not in found]
            if missing or found.get("issuer") != self._settings.issuer:
                why = f"it lacks {', '.join(missing)}" if missing else f"it calls itself {found.get('issuer')}"
                what = f"{self._settings.issuer} is no such identity provider"
                raise UnreachableError(what, why, "mend --oidc-issuer")
            self._metadata = found
        return self._metadata

    async def _ask(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        try:
            async with self._session.request(method, url, timeout=TIMEOUT, allow_redirects=False, **more) as answer:
                found = await answer.json(content_type=None)
                if answer.status >= 300 or not isinstance(found, dict):
                    said = found.get("error", "") if isinstance(found, dict) else ""
                    raise UnreachableError(f"{self.name} refused", f"it answered {answer.status} {said}", "see its log")
                return found
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(
                f"{self.name} does not answer", f"{type(error).__name__}: {error}", "see whether it is up"
            ) from error


def oidc_ports(flags: OidcFlags, public_url: str, session: aiohttp.ClientSession) -> OidcPorts:
    """Join what logging in with a provider needs.

    Args:
        flags: what the command line says.
        public_url: where browsers reach the console.
        session: the HTTP connections to the provider.

    Raises:
        UsageError: when something does not fit.
    """
    redirect = f"{public_url.rstrip('/')}/oidc/callback"
    return OidcPorts(OidcProvider(settings_of(flags), session), redirect, time.time)


class _Library:
    """Authlib, imported when somebody logs in by a provider: it is an extra of its own."""

    def __init__(self) -> None:
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415 - an extra
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415
        from joserfc import errors, jwk, jwt  # noqa: PLC0415

        self.challenge: Any = create_s256_code_challenge
        self._token, self._jwt, self._jwk, self._errors = CodeIDToken, jwt, jwk, errors

    def claims(
        self, id_token: str, keys: Mapping[str, Any], issuer: str, client_id: str, nonce: str, access: Any
    ) -> Mapping[str, Any]:
        """Return what a token says, once its signature and everything it says of itself hold.

        Raises:
            ValueError: when something does not.
        """
        try:
            found = self._jwt.decode(id_token, self._jwk.KeySet.import_key_set(keys), algorithms=list(ALGORITHMS))  # type: ignore[arg-type]
            options = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": client_id}}
            params = {"nonce": nonce, "client_id": client_id, "access_token": access}
            held = self._token(found.claims, found.header, options, params)
            held.validate(now=int(time.time()), leeway=LEEWAY_S)
        except (self._errors.JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
        return dict(held)


def _library() -> _Library:
    try:
        return _Library()
    except ImportError as error:
        raise UsageError(
            "logging in with an identity provider needs Authlib", str(error), "install `controlplane[oidc]`"
        ) from error
