"""Logging in with an identity provider: the whole way round, and every way in which it must not end inside."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from joserfc import jwk
from yarl import URL

from controlplane.errors import UsageError
from controlplane.runtime.identity import OidcProvider, OidcSettings, settings_of
from controlplane.security.roles import Role
from controlplane.security.tokens import csrf_of
from controlplane.settings import OidcFlags
from controlplane.web.app import build_app
from controlplane.web.oidc import PENDING, PENDING_S, Begun, OidcPorts, opened, sealed
from tests.support.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from tests.unit.web.test_api import Told, ports, serving


@dataclass(slots=True)
class World:
    """A provider, an application that trusts it, and a browser."""

    issuer: Issuer
    url: str
    browser: aiohttp.ClientSession
    told: Told
    late_s: float = 0.0

    async def get(self, url: str) -> aiohttp.ClientResponse:
        async with self.browser.get(url, allow_redirects=False) as answer:
            await answer.read()
            return answer

    async def there(self, onward: str = "/drills/abc123") -> str:
        """Begin a login, log in over there, and return the address that leads back."""
        begun = await self.get(f"{self.url}/oidc/start?next={onward}")
        assert begun.status == 303, await begun.text()
        back = await self.get(begun.headers["location"])
        assert back.status == 302
        return back.headers["location"]

    async def login(self) -> aiohttp.ClientResponse:
        return await self.get(await self.there())

    @property
    def cookie(self) -> str:
        found = self.browser.cookie_jar.filter_cookies(URL(self.url)).get("controlplane")
        return found.value if found else ""


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    runner = web.AppRunner(issuer.app(), handle_signals=False, access_log=None)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await web.SockSite(runner, listener).start()
        issuer.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield issuer
        finally:
            await runner.cleanup()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    told = Told()
    async with issuing() as issuer, aiohttp.ClientSession() as session:
        provider = OidcProvider(OidcSettings(issuer.url, CLIENT_ID, CLIENT_SECRET), session)
        made: list[World] = []
        oidc = OidcPorts(provider, "", lambda: time.time() + made[0].late_s)
        app = build_app(replace(ports(told), oidc=oidc))
        jar = aiohttp.CookieJar(unsafe=True)
        async with serving(app) as url, aiohttp.ClientSession(cookie_jar=jar) as browser:
            object.__setattr__(oidc, "redirect", f"{url}/oidc/callback")  # Known only now that we are served.
            made.append(World(issuer, url, browser, told))
            yield made[0]


async def test_a_person_logs_in_over_there_and_lands_where_they_were_going(world: World) -> None:
    page = await world.get(f"{world.url}/login?next=/drills/abc123")
    assert "/oidc/start?next=/drills/abc123" in await page.text()
    world.issuer.claims |= {"preferred_username": "ann"}
    inside = await world.login()
    assert inside.status == 200
    assert 'content="0; url=/drills/abc123"' in await inside.text()
    session = next(c for c in inside.headers.getall("set-cookie") if c.startswith("controlplane="))
    assert "SameSite=strict" in session
    assert "HttpOnly" in session
    who = await (await world.get(f"{world.url}/api/v1/whoami")).json()
    assert who == {"name": "ann", "role": "operator", "credential": "session of oidc:u1"}
    headers = {"x-csrf-token": csrf_of(world.cookie)}
    async with world.browser.post(f"{world.url}/api/v1/heal", json={}, headers=headers) as done:
        assert done.status == 200
    assert world.told.doors.audit.outcomes[0] == ("ann", "GET /oidc/callback", "done 200")


@pytest.mark.parametrize(
    ("groups", "role"),
    [("controlplane-viewer", "viewer"), (["x", "controlplane-admin", "controlplane-viewer"], "admin"),
     (["others"], None), (None, None), ([["controlplane-admin"]], None), ("admin", None)],
)  # fmt: skip
async def test_the_claim_says_what_somebody_may_do_and_without_it_nobody_comes_in(
    world: World, groups: object, role: str | None
) -> None:
    world.issuer.claims["groups"] = groups
    answer = await world.login()
    assert (answer.status, bool(world.cookie)) == ((200, True) if role else (403, False))
    if role:
        assert (await (await world.get(f"{world.url}/api/v1/whoami")).json())["role"] == role
    else:
        assert world.told.doors.audit.outcomes == [("anonymous", "GET /oidc/callback", "refused 403")]


@pytest.mark.parametrize(
    "claims",
    [{"iss": "https://evil.example"}, {"aud": "another"}, {"exp": 1}, {"nonce": "another"}, {"sub": None},
     {"aud": [CLIENT_ID, "another"]}, {"azp": "another"}, {"iat": 9_999_999_999}],
    ids=lambda claims: next(iter(claims)),
)  # fmt: skip
async def test_a_token_for_somebody_else_or_of_another_time_does_not_hold(
    world: World, claims: dict[str, object]
) -> None:
    world.issuer.claims |= claims
    answer = await world.login()
    assert (answer.status, world.cookie) == (403, "")
    assert "does not hold" in await answer.text()


async def test_a_token_signed_by_another_or_by_a_shared_secret_does_not_hold(world: World) -> None:
    world.issuer.foreign = jwk.RSAKey.generate_key(2048, {"kid": "one"})
    assert (await world.login()).status == 403
    world.issuer.foreign = jwk.OctKey.import_key(CLIENT_SECRET.ljust(40, "x"))
    world.issuer.header = {"alg": "HS256", "kid": "one"}
    assert (await world.login()).status == 403
    assert world.cookie == ""


async def test_keys_that_changed_over_there_are_fetched_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.runtime.identity.KEYS_AGAIN_S", -1.0)
    assert (await world.login()).status == 200
    world.issuer.key, world.issuer.header = (
        jwk.RSAKey.generate_key(2048, {"kid": "two"}),
        {"alg": "RS256", "kid": "two"},
    )
    assert (await world.login()).status == 200
    assert world.issuer.asked.count("discovery") == 1


async def test_an_answer_that_was_not_asked_for_or_comes_twice_lets_nobody_in(world: World) -> None:
    back = await world.there()
    assert (await world.get(f"{world.url}/oidc/callback?code=stolen&state=guessed")).status == 401
    world.browser.cookie_jar.clear()
    assert (await world.get(back)).status == 401, "another browser did not begin this login"
    back = await world.there()
    jar = {c.key: c.value for c in world.browser.cookie_jar}
    assert (await world.get(back)).status == 200
    world.browser.cookie_jar.clear()
    again = {"cookie": f"{PENDING}={jar[PENDING]}"}
    async with world.browser.get(back, headers=again, allow_redirects=False) as answer:
        assert answer.status == 403, "the provider takes a code once"


async def test_a_login_that_takes_too_long_is_begun_anew(world: World) -> None:
    back = await world.there()
    world.late_s = PENDING_S + 1
    assert (await world.get(back)).status == 401


async def test_who_is_turned_away_over_there_is_told(world: World) -> None:
    back = URL(await world.there())
    answer = await world.get(str(back.with_query(state=back.query["state"], error="access_denied")))
    assert answer.status == 401
    assert "access_denied" in await answer.text()


async def test_a_provider_that_does_not_answer_is_said_and_tokens_go_on_working(world: World) -> None:
    async with aiohttp.ClientSession() as session:
        dead = OidcProvider(OidcSettings("http://127.0.0.1:1", CLIENT_ID, CLIENT_SECRET), session)
        app = build_app(replace(ports(world.told), oidc=OidcPorts(dead, "http://x/oidc/callback", time.time)))
        async with serving(app) as url:
            answer = await world.get(f"{url}/oidc/start")
            assert answer.status == 503
            assert "does not answer" in await answer.text()
            assert 'name="token"' in await answer.text()


def test_what_travels_with_the_browser_cannot_be_changed() -> None:
    begun = Begun("s", "n", "v", "/", 1.0)
    text = sealed(begun, b"key")
    assert opened(text, b"key") == begun
    for other in ("", ".", "x." + "0" * 64, text[:-1], "A" + text[1:], sealed(begun, b"another")):
        assert opened(other, b"key") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [({"client_id": ""}, "--oidc-client-id"), ({"client_secret_file": None}, "--oidc-client-secret-file"),
     ({"client_secret_file": Path("/nowhere")}, "cannot read"), ({"roles": ("root=x",)}, "root=x"),
     ({"roles": ("admin",)}, "ROLE=VALUE")],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s\n")
    flags = OidcFlags("https://id.example", CLIENT_ID, tmp_path / "secret")
    assert settings_of(flags).client_secret == "s"
    assert settings_of(replace(flags, roles=("admin=sre", "viewer=staff"))).roles == {
        "sre": Role.ADMIN, "staff": Role.VIEWER,
    }  # fmt: skip
    with pytest.raises(UsageError) as refused:
        settings_of(replace(flags, **change))
    assert said in f"{refused.value.what} {refused.value.why}"
    with pytest.raises(UsageError, match="https"):
        OidcProvider(OidcSettings("http://id.example", "a", "b"), None)  # type: ignore[arg-type]
