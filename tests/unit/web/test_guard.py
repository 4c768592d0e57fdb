"""The guard: every route by every role, forms of other sites, sessions, limits, and what the audit log says of it."""

import asyncio
import base64
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from html import unescape
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route
from yarl import URL

from controlplane.errors import StoreError
from controlplane.security.roles import MAY, Need, Role, Scraping
from controlplane.security.tokens import SESSION_IDLE, SESSION_LASTS, Session, csrf_of, digest, spell
from controlplane.web import guard
from controlplane.web.access import NEEDS, asked, spelled
from controlplane.web.app import build_app
from controlplane.web.auth import REMEMBERED_S
from tests.support.doors import FILE_TOKEN, Doors, text_of
from tests.unit.web.test_api import POSTS, Told, ports, serving

HTML = {"accept": "text/html"}
FILLED = {
    "drill_id": "abc123", "experiment": "node-kill", "level": "P0", "token_id": "0" * 12, "incident_id": "x",
    "name": "x", "verb": "note", "signal": "latency_p99", "receipt_id": "x", "lever": "pin", "pool": "primary",
}  # fmt: skip
COMES_LATER = {("POST", "/hooks/alertmanager"), ("GET", "/oidc/start"), ("GET", "/oidc/callback")}
"""Named in the table for what stands in front of the application, is added beside it, or only when it is configured."""


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Every route that the application itself knows of, by method."""
    found = set()
    for route in app.routes:
        assert isinstance(route, APIRoute | Route | Mount), route
        methods = {"GET"} if isinstance(route, Mount) else set(route.methods or ()) - {"HEAD"}
        found |= {(method, spelled(route)) for method in methods}
    return found


ROUTES = sorted(routes(build_app(ports(Told()))))


@dataclass(slots=True)
class Site:
    """The application, served, and everything behind its doors."""

    url: str
    session: aiohttp.ClientSession
    told: Told

    @property
    def doors(self) -> Doors:
        return self.told.doors

    async def ask(
        self, method: str, path: str, token: str = "", data: Any = None, headers: dict[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        sent = dict(headers or {})
        if token:
            sent["authorization"] = f"Bearer {token}"
        if isinstance(data, dict) and "content-type" not in sent:
            sent["content-type"], data = "application/json", json.dumps(data)
        async with self.session.request(
            method, self.url + path, data=data, headers=sent, allow_redirects=False
        ) as answer:
            await answer.read() if path != "/events" else None
            return answer

    async def login(self, token: str, **fields: str) -> aiohttp.ClientResponse:
        form = aiohttp.FormData({"token": token, **fields})
        async with self.session.post(self.url + "/login", data=form, allow_redirects=False) as answer:
            await answer.read()
            return answer

    @property
    def cookie(self) -> str:
        """The session's cookie in this browser; empty without one."""
        found = self.session.cookie_jar.filter_cookies(URL(self.url)).get("controlplane")
        return found.value if found else ""


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with started(Told()) as found:
        yield found


def started(told: Told) -> Any:
    from contextlib import asynccontextmanager  # noqa: PLC0415

    @asynccontextmanager
    async def run() -> AsyncIterator[Site]:
        jar = aiohttp.CookieJar(unsafe=True)  # Cookies of addresses, not only of names.
        async with serving(build_app(ports(told))) as url, aiohttp.ClientSession(cookie_jar=jar) as session:
            yield Site(url, session, told)

    return run()


# -- every route, every role -------------------------------------------------------------------------------------------


def test_every_route_names_what_it_needs_and_the_table_names_no_other() -> None:
    assert set(ROUTES) - set(NEEDS) == set(), "add the route to `web.access.NEEDS`"
    assert set(NEEDS) - set(ROUTES) <= COMES_LATER


def test_a_route_that_the_table_does_not_know_opens_to_admins_only() -> None:
    app = FastAPI(openapi_url=None)
    app.add_api_route("/new", lambda: None)
    scope = {"type": "http", "method": "GET", "path": "/new", "headers": [], "root_path": ""}
    assert asked(app.routes, scope) == ("/new", Need.ADMIN)
    assert asked(app.routes, {**scope, "path": "/none"})[1] is Need.VIEWER
    app.add_api_route("/{any}", lambda: None)
    app.add_api_route("/other", lambda: None, methods=["POST"])
    assert asked(app.routes, {**scope, "path": "/other", "method": "POST"}) == ("/other", Need.ADMIN)


def test_no_role_may_what_a_lesser_one_may_not_and_a_hook_may_nothing_else() -> None:
    assert MAY[Role.VIEWER] < MAY[Role.OPERATOR] < MAY[Role.ADMIN] == set(Need)
    assert MAY[Role.WEBHOOK] == {Need.ANYONE, Need.WEBHOOK}


BODIES = {path: body for path, body, _ in POSTS.values()}


@pytest.mark.parametrize("who", ["nobody", "wrong", "file", *Role])
async def test_every_route_opens_to_whom_the_table_says_and_to_nobody_else(site: Site, who: str) -> None:
    role = Role(who) if who in list(Role) else None
    token = {"nobody": "", "wrong": "cpt_" + "0" * 12 + "_" + "x" * 43, "file": FILE_TOKEN}.get(who) or (
        text_of(role) if role else ""
    )
    site.told.doors.scraping = Scraping.TOKEN
    async with started(replace(site.told)) as strict:
        for method, path in ROUTES:
            need = NEEDS[method, path]
            filled = path.format(**FILLED) + ("/console.css" if path == "/static" else "")
            asks = strict.doors.pass_time(timedelta(minutes=2)) or len(strict.told.calls)
            answer = await strict.ask(method, filled, token, BODIES.get(filled, {}) if method == "POST" else None)
            opens = need is Need.ANYONE or who == "file" or (role is not None and need in MAY[role])
            refused = answer.status == (401 if role is None else 403) and path != "/login"
            assert refused != opens, (method, path, who, answer.status)
            if not opens:
                assert len(strict.told.calls) == asks, f"{method} {path} was done for {who}"


@pytest.mark.parametrize(
    ("scraping", "headers", "status"),
    [
        (Scraping.LOOPBACK, {}, 200), (Scraping.TOKEN, {}, 401), (Scraping.ANYONE, {}, 200),
        (Scraping.LOOPBACK, {"x-forwarded-for": "127.0.0.1"}, 401),
        (Scraping.LOOPBACK, {"host": "rebound.example"}, 401),
        (Scraping.ANYONE, {"host": "rebound.example"}, 200),
    ],
)  # fmt: skip
async def test_metrics_are_open_as_the_setting_says(scraping: Scraping, headers: dict[str, str], status: int) -> None:
    async with started(Told(doors=Doors(scraping=scraping))) as site:
        assert (await site.ask("GET", "/metrics", headers=headers)).status == status
        assert (await site.ask("GET", "/metrics", text_of(Role.VIEWER), headers=headers)).status == 200


async def test_a_stranger_learns_whether_we_are_ready_and_not_what_is_missing(site: Site) -> None:
    site.told.missing = ("primary-0 has not been looked at yet",)
    far = await site.ask("GET", "/readyz", headers={"host": "elsewhere.example"})
    assert far.status == 503
    assert "primary-0" not in await far.text()
    assert "primary-0" in await (await site.ask("GET", "/readyz")).text()


async def test_basic_authentication_carries_a_token_as_its_password(site: Site) -> None:
    given = base64.b64encode(f"alertmanager:{text_of(Role.VIEWER)}".encode()).decode()
    assert (await site.ask("GET", "/api/v1/halt", headers={"authorization": f"Basic {given}"})).status == 200
    for wrong in ("Basic !!", "Basic " + base64.b64encode(b"\xff:\xff").decode(), "Digest x", "Bearer"):
        assert (await site.ask("GET", "/api/v1/halt", headers={"authorization": wrong})).status == 401


# -- tokens ------------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_works_and_is_taken_back_at_once(site: Site) -> None:
    made = await (await site.ask("POST", "/api/v1/tokens", FILE_TOKEN, {"name": "ann", "role": "operator"})).json()
    assert (await site.ask("POST", "/api/v1/brake", made["token"], {"why": "x"})).status == 201
    listed = await (await site.ask("GET", "/api/v1/tokens", FILE_TOKEN)).text()
    assert made["id"] in listed
    assert made["token"] not in listed
    assert digest(made["token"]) not in listed
    assert (await site.ask("POST", f"/api/v1/tokens/{made['id']}/revoke", FILE_TOKEN, {})).status == 200
    assert (await site.ask("POST", "/api/v1/brake", made["token"], {"why": "x"})).status == 401
    assert (await site.ask("POST", f"/api/v1/tokens/{made['id']}/revoke", FILE_TOKEN, {})).status == 404


async def test_a_token_that_is_taken_back_while_it_is_looked_up_is_not_remembered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, used = text_of(Role.VIEWER), site.doors.tokens.used
    found, go_on = asyncio.Event(), asyncio.Event()

    async def slow(token_id: str, at: datetime) -> None:
        found.set()
        await go_on.wait()
        await used(token_id, at)

    monkeypatch.setattr(type(site.doors.tokens), "used", lambda _, *told: slow(*told))
    before = asyncio.create_task(site.ask("GET", "/api/v1/halt", token))
    await found.wait()
    assert (await site.ask("POST", f"/api/v1/tokens/{token[4:16]}/revoke", FILE_TOKEN, {})).status == 200
    go_on.set()
    assert (await before).status == 200
    assert (await site.ask("GET", "/api/v1/halt", token)).status == 401


async def test_a_token_ends_at_its_time_and_says_when_it_was_used(site: Site) -> None:
    body = {"name": "ann", "role": "viewer", "expires_in": "10m"}
    made = await (await site.ask("POST", "/api/v1/tokens", FILE_TOKEN, body)).json()
    assert (await site.ask("GET", "/api/v1/halt", made["token"])).status == 200
    assert site.doors.tokens.kept[made["id"]].last_used_at == site.doors.now
    site.doors.pass_time(timedelta(minutes=10))
    assert (await site.ask("GET", "/api/v1/halt", made["token"])).status == 401


@pytest.mark.parametrize(
    "body", [{"name": "", "role": "viewer"}, {"name": "x", "role": "root"}, {"name": "x\n", "role": "viewer"},
             {"name": "x", "role": "viewer", "expires_in": "soon"}, {"name": "x", "role": "viewer", "more": 1}],
)  # fmt: skip
async def test_a_token_that_makes_no_sense_is_not_handed_out(site: Site, body: dict[str, object]) -> None:
    before = len(site.doors.tokens.kept)
    assert (await site.ask("POST", "/api/v1/tokens", FILE_TOKEN, body)).status in (400, 422)
    assert len(site.doors.tokens.kept) == before


async def test_a_token_with_the_right_id_and_another_secret_opens_nothing(site: Site) -> None:
    token_id = text_of(Role.ADMIN)[4:16]
    for secret in ("y" * 43, "admin".ljust(42, "x") + "y"):
        assert (await site.ask("GET", "/api/v1/halt", spell(token_id, secret))).status == 401


async def test_the_store_is_not_asked_at_each_request_and_forgets_soon(site: Site) -> None:
    for _ in range(5):
        assert (await site.ask("GET", "/api/v1/halt", text_of(Role.VIEWER))).status == 200
    assert site.doors.tokens.looked_up == 1
    site.doors.pass_time(timedelta(seconds=REMEMBERED_S))
    await site.ask("GET", "/api/v1/halt", text_of(Role.VIEWER))
    assert site.doors.tokens.looked_up == 2


async def test_the_files_token_opens_even_while_the_store_does_not_answer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: object) -> None:
        raise StoreError("the database refuses", "locked", "stop the other process")

    monkeypatch.setattr(type(site.doors.tokens), "find", lambda _, token_id: broken(token_id))
    assert (await site.ask("GET", "/api/v1/halt", FILE_TOKEN)).status == 200
    answer = await site.ask("GET", "/api/v1/halt", text_of(Role.ADMIN))
    assert (answer.status, "retry-after" in answer.headers) == (503, True)


# -- sessions ----------------------------------------------------------------------------------------------------------


async def test_a_page_without_a_session_leads_to_the_login_and_back(site: Site) -> None:
    sent_away = await site.ask("GET", "/drills/abc123", headers=HTML)
    assert (sent_away.status, sent_away.headers["location"]) == (303, "/login?next=/drills/abc123")
    assert 'name="token"' in await (await site.ask("GET", "/login")).text()
    inside = await site.login(text_of(Role.VIEWER), next="/drills/abc123")
    assert (inside.status, inside.headers["location"]) == (303, "/drills/abc123")
    assert (await site.ask("GET", "/drills/abc123", headers=HTML)).status == 200


@pytest.mark.parametrize(
    ("asked_for", "reached"),
    [
        ("/incidents/chat/none/2026-11-21T03:04:05.000000+00:00", None),
        ("/incidents/a&b+c%20d", None),
        ("/incidents?state=open&level=P0", None),
        ("//evil.example/drills", "/"),
        ("//evil.example?state=open", "/"),
    ],
)
async def test_a_login_leads_to_the_very_page_that_was_asked_for(
    site: Site, asked_for: str, reached: str | None
) -> None:
    sent_away = await site.ask("GET", asked_for, headers=HTML)
    form = await (await site.ask("GET", sent_away.headers["location"])).text()
    onward = re.search('name="next" value="([^"]*)"', form)
    assert onward
    inside = await site.login(text_of(Role.VIEWER), next=unescape(onward[1]))
    assert inside.headers["location"] == (reached or asked_for)


@pytest.mark.parametrize("onward", ["//evil.example", "https://evil.example", "/\\evil.example", "", "javascript:0"])
async def test_the_login_leads_to_no_other_site(site: Site, onward: str) -> None:
    assert (await site.login(text_of(Role.VIEWER), next=onward)).headers["location"] == "/"


async def test_the_cookie_is_kept_from_scripts_and_other_sites(site: Site) -> None:
    set_cookie = (await site.login(text_of(Role.VIEWER))).headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip() for part in set_cookie.split(";")}
    assert f"max-age={int(SESSION_LASTS.total_seconds())}" in set_cookie
    assert "secure" not in set_cookie
    assert all(site.cookie not in kept for kept in site.doors.sessions.kept), "only a hash is kept"


async def test_under_tls_the_cookie_is_secure_and_bound_to_the_host() -> None:
    async with started(Told(doors=Doors(secure=True))) as site:
        answer = await site.login(text_of(Role.VIEWER))
        assert answer.headers["set-cookie"].startswith("__Host-controlplane=")
        assert "secure" in answer.headers["set-cookie"].lower()
        assert "strict-transport-security" in answer.headers


@pytest.mark.parametrize("token", ["", "wrong", "cpt_" + "0" * 12 + "_" + "x" * 43, text_of(Role.WEBHOOK)])
async def test_a_token_that_opens_nothing_here_logs_nobody_in(site: Site, token: str) -> None:
    answer = await site.login(token)
    assert (answer.status, site.cookie) == (401, "")
    assert site.doors.sessions.kept == {}


async def test_a_planted_cookie_is_not_taken_up_and_an_older_session_ends(site: Site) -> None:
    site.session.cookie_jar.update_cookies({"controlplane": "planted"}, URL(site.url))
    await site.login(text_of(Role.OPERATOR))
    first = site.cookie
    assert first not in ("", "planted")
    await site.login(text_of(Role.OPERATOR))
    assert site.cookie != first
    assert site.doors.sessions.kept[digest(first)].ended_at == site.doors.now


@pytest.mark.parametrize("after", [SESSION_IDLE, SESSION_LASTS])
async def test_a_session_ends_when_it_is_idle_or_old(site: Site, after: timedelta) -> None:
    await site.login(text_of(Role.VIEWER))
    site.doors.pass_time(SESSION_IDLE - timedelta(seconds=1))
    assert (await site.ask("GET", "/")).status == 200
    site.doors.pass_time(after)
    assert (await site.ask("GET", "/")).status == 401


async def test_a_session_in_use_goes_on_until_it_is_old(site: Site) -> None:
    await site.login(text_of(Role.VIEWER))
    for _ in range(int(SESSION_LASTS / timedelta(minutes=30)) - 1):
        site.doors.pass_time(timedelta(minutes=30))
        assert (await site.ask("GET", "/")).status == 200
    site.doors.pass_time(timedelta(minutes=30))
    assert (await site.ask("GET", "/")).status == 401


async def test_what_an_open_page_fetches_by_itself_keeps_no_session_alive(site: Site) -> None:
    await site.login(text_of(Role.VIEWER))
    for _ in range(3):
        site.doors.pass_time(SESSION_IDLE / 4)
        assert (await site.ask("GET", "/fragment")).status == 200
    site.doors.pass_time(SESSION_IDLE / 4)
    assert (await site.ask("GET", "/fragment")).status == 401


async def test_a_person_whose_page_polls_before_each_click_stays_logged_in(site: Site) -> None:
    await site.login(text_of(Role.VIEWER))
    for _ in range(31):
        site.doors.pass_time(timedelta(minutes=2))
        assert (await site.ask("GET", "/fragment")).status == 200
        site.doors.pass_time(timedelta(seconds=REMEMBERED_S / 2))
        assert (await site.ask("GET", "/")).status == 200


async def test_logging_out_ends_the_session_here_and_not_only_in_the_browser(site: Site) -> None:
    await site.login(text_of(Role.OPERATOR))
    cookie = site.cookie
    out = await site.ask("POST", "/logout", headers={"x-csrf-token": csrf_of(cookie)})
    assert (out.status, site.cookie) == (303, "")
    assert (await site.ask("GET", "/", headers={"cookie": f"controlplane={cookie}"})).status == 401


async def test_a_session_that_ends_while_it_is_looked_up_is_not_remembered(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.login(text_of(Role.OPERATOR))
    cookie, find = site.cookie, site.doors.sessions.find
    found, go_on = asyncio.Event(), asyncio.Event()

    async def slow_at_first(hashed: str) -> Session | None:
        session = await find(hashed)
        if not found.is_set():
            found.set()
            await go_on.wait()
        return session

    monkeypatch.setattr(type(site.doors.sessions), "find", lambda _, hashed: slow_at_first(hashed))
    before = asyncio.create_task(site.ask("GET", "/"))
    await found.wait()
    assert (await site.ask("POST", "/logout", headers={"x-csrf-token": csrf_of(cookie)})).status == 303
    go_on.set()
    assert (await before).status == 200
    assert (await site.ask("GET", "/", headers={"cookie": f"controlplane={cookie}"})).status == 401


async def test_a_token_that_is_taken_back_or_expires_ends_its_sessions(site: Site) -> None:
    await site.login(text_of(Role.OPERATOR))
    assert (await site.ask("GET", "/")).status == 200
    token_id = text_of(Role.OPERATOR)[4:16]
    await site.ask("POST", f"/api/v1/tokens/{token_id}/revoke", FILE_TOKEN, {})
    assert (await site.ask("GET", "/")).status == 401


# -- forms of other sites ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted({path for path, _, _ in POSTS.values()} | {"/logout"}))
async def test_a_session_alone_does_nothing_without_what_only_its_page_knows(site: Site, path: str) -> None:
    await site.login(FILE_TOKEN)
    calls = len(site.told.calls)
    for headers in ({}, {"x-csrf-token": "x"}, {"x-csrf-token": csrf_of("another")}):
        assert (await site.ask("POST", path, data=BODIES.get(path, {}), headers=headers)).status == 403
    assert len(site.told.calls) == calls
    assert site.cookie


async def test_the_page_tells_its_forms_what_to_send_back(site: Site) -> None:
    await site.login(text_of(Role.OPERATOR))
    known = csrf_of(site.cookie)
    page = await (await site.ask("GET", "/")).text()
    assert f'<input type="hidden" name="csrf" value="{known}">' in page
    assert "the operator" in page
    assert f'name="csrf" value="{known}"' in page
    assert site.cookie not in page
    done = await site.ask("POST", "/api/v1/brake", data={"why": "x"}, headers={"x-csrf-token": known})
    assert done.status == 201
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await site.ask("POST", "/logout", data=f"csrf={known}", headers=form)).status == 303


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
     {"origin": "null"}],
)  # fmt: skip
async def test_what_a_browser_says_comes_from_another_site_is_refused(site: Site, headers: dict[str, str]) -> None:
    await site.login(text_of(Role.OPERATOR))
    knowing = headers | {"x-csrf-token": csrf_of(site.cookie)}
    assert (await site.ask("POST", "/api/v1/brake", data={"why": "x"}, headers=knowing)).status == 403
    assert (await site.ask("POST", "/login", data="token=x", headers=headers)).status == 403
    assert site.told.calls == []


async def test_our_own_page_is_no_other_site(site: Site) -> None:
    headers = {"origin": site.url, "sec-fetch-site": "same-origin"}
    assert (await site.ask("POST", "/api/v1/brake", FILE_TOKEN, {"why": "x"}, headers)).status == 201


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(site: Site) -> None:
    answers = [(await site.ask("GET", "/api/v1/halt", "wrong")).status for _ in range(12)]
    assert answers == [401] * 10 + [429] * 2
    assert (await site.ask("GET", "/api/v1/halt", text_of(Role.VIEWER))).status == 200
    assert (await site.login(text_of(Role.VIEWER))).status == 429, "the form is closed to this address"
    site.doors.pass_time(timedelta(seconds=6))
    assert (await site.login(text_of(Role.VIEWER))).status == 303


async def test_wrong_logins_are_slowed_down(site: Site) -> None:
    answers = [await site.login("wrong") for _ in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_writes_are_limited_by_credential(site: Site) -> None:
    operator, admin = text_of(Role.OPERATOR), text_of(Role.ADMIN)
    for _ in range(99):
        site.doors.writes.take(f"{operator[4:16]} the operator", site.doors.clock_s())
    answers = [(await site.ask("POST", "/api/v1/heal", operator, {})).status for _ in range(2)]
    assert answers == [200, 429]
    assert (await site.ask("POST", "/api/v1/heal", admin, {})).status == 200
    assert (await site.ask("GET", "/api/v1/halt", operator)).status == 200


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    body = io.BytesIO(b"x" * (guard.MAX_BODY_BYTES + 1))
    assert (await site.ask("POST", "/api/v1/heal", FILE_TOKEN, body)).status == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 65536

    assert (await site.ask("POST", "/api/v1/heal", FILE_TOKEN, endless())).status == 413
    assert site.told.calls == []


async def test_a_body_that_comes_drop_by_drop_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_WITHIN_S", 0.05)
    never = asyncio.Event()

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    assert (await site.ask("POST", "/api/v1/heal", FILE_TOKEN, dripping())).status == 408
    assert site.told.calls == []


# -- the audit log -----------------------------------------------------------------------------------------------------


async def test_a_write_is_recorded_before_and_after_with_who_why_and_from_where(site: Site) -> None:
    body = {"why": "racks\u0000 move", "who": "ann", "for": "30m"}
    await site.ask("POST", "/api/v1/pins/P1", text_of(Role.OPERATOR), body)
    before, after = site.doors.audit.links
    assert (before.deed.outcome, after.deed.outcome) == ("asked", "done 201")
    deed = after.deed
    assert (deed.who, deed.role, deed.source) == ("the operator", "operator", "127.0.0.1")
    assert (deed.action, deed.why) == ("POST /api/v1/pins/P1", "racks\ufffd move")
    assert deed.detail == "who ann; for 30m"
    assert deed.at == site.doors.now


async def test_reading_is_not_recorded_and_refusals_are(site: Site) -> None:
    await site.ask("GET", "/api/v1/halt", text_of(Role.VIEWER))
    assert site.doors.audit.links == []
    await site.ask("POST", "/api/v1/halt", text_of(Role.VIEWER), {"why": "x"})
    await site.ask("POST", "/api/v1/halt", "wrong", {"why": "x"})
    await site.ask("GET", "/api/v1/audit", text_of(Role.OPERATOR))
    assert site.doors.audit.outcomes == [
        ("the viewer", "POST /api/v1/halt", "refused 403"),
        ("anonymous", "POST /api/v1/halt", "refused 401"),
        ("the operator", "GET /api/v1/audit", "refused 403"),
    ]
    assert site.doors.refused == [403, 401, 403]


async def test_refusals_alike_are_recorded_once_a_minute_with_their_number(site: Site) -> None:
    for _ in range(7):
        await site.ask("POST", "/api/v1/halt", text_of(Role.VIEWER), {"why": "x"})
    assert len(site.doors.audit.links) == 1
    site.doors.pass_time(timedelta(minutes=1))
    await site.ask("POST", "/api/v1/halt", text_of(Role.VIEWER), {"why": "x"})
    assert "6 more like it" in site.doors.audit.links[-1].deed.detail


async def test_what_cannot_be_recorded_is_not_done(site: Site) -> None:
    site.doors.audit.broken = StoreError("the database refuses", "disk full", "free space")
    answer = await site.ask("POST", "/api/v1/heal", FILE_TOKEN, {})
    assert (answer.status, site.told.calls) == (503, [])
    assert "nothing was done" in await answer.text()


async def test_who_logs_in_and_out_is_recorded_and_what_they_showed_is_not(site: Site) -> None:
    await site.login("wrong-secret")
    await site.login(text_of(Role.OPERATOR))
    await site.ask("POST", "/logout", headers={"x-csrf-token": csrf_of(site.cookie)})
    assert site.doors.audit.outcomes == [
        ("anonymous", "POST /login", "refused 401"),
        ("the operator", "POST /login", "done 303"),
        ("the operator", "POST /logout", "done 303"),
    ]
    kept = repr(site.doors.audit.links)
    assert "wrong-secret" not in kept
    assert text_of(Role.OPERATOR) not in kept


async def test_a_failure_is_recorded_as_one(site: Site) -> None:
    site.told.answer = RuntimeError("boom")
    answer = await site.ask("POST", "/api/v1/drills", FILE_TOKEN, {"experiment": "node-kill"})
    assert answer.status == 500
    assert site.doors.audit.outcomes[-1] == ("local", "POST /api/v1/drills", "failed 500")


async def test_the_log_is_listed_checked_and_shown_to_admins(site: Site) -> None:
    await site.ask("POST", "/api/v1/heal", FILE_TOKEN, {})
    rows = await (await site.ask("GET", "/api/v1/audit", FILE_TOKEN)).json()
    assert [(row["number"], row["outcome"]) for row in rows] == [(2, "done 200"), (1, "asked")]
    older = await (await site.ask("GET", "/api/v1/audit?before=2&limit=1", FILE_TOKEN)).json()
    assert [row["number"] for row in older] == [1]
    checked = await (await site.ask("GET", "/api/v1/audit/check", FILE_TOKEN)).json()
    assert (checked["rows"], checked["holds"], checked["breaks"]) == (2, True, [])
    noted = await (await site.ask("GET", f"/api/v1/audit/check?noted=2:{'0' * 64}", FILE_TOKEN)).json()
    assert [b["number"] for b in noted["breaks"]] == [2]
    assert (await site.ask("GET", "/api/v1/audit/check?noted=nonsense", FILE_TOKEN)).status == 400
    page = await (await site.ask("GET", "/audit", FILE_TOKEN)).text()
    assert "POST /api/v1/heal" in page
    assert "<script" not in page


async def test_many_writes_at_once_make_one_chain(site: Site) -> None:
    await asyncio.gather(*(site.ask("POST", "/api/v1/heal", FILE_TOKEN, {}) for _ in range(20)))
    assert (await site.doors.audit.check(None)).breaks == ()
    assert len(site.doors.audit.links) == 40
