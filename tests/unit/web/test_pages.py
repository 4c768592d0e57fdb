"""The console's pages beyond the front page: what they show, what they offer to whom, and what their forms ask for."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from urllib.parse import urlencode

import aiohttp
import pytest

from controlplane.chaos.drill import Drill
from controlplane.degradation.machine import Phase
from controlplane.degradation.matrix import Level
from controlplane.fleet.model import Endpoint
from controlplane.flows.standing import EndpointStanding
from controlplane.incidents.history import Trace
from controlplane.render.reports.charts import charts
from controlplane.security.chain import Deed
from controlplane.security.roles import Role
from controlplane.web.app import build_app
from controlplane.web.frame import SAID, Frame
from controlplane.web.page import Overview
from controlplane.web.pages.fleet import ROWS, cells, fleet_sheet, fleet_view, read_asked
from controlplane.web.pages.log import audit_view
from controlplane.web.pages.matrix import LEVERS, offered, preview, whole_offered
from tests.support import consoles, incident_pages, overviews
from tests.support.doors import MemoryAudit, text_of
from tests.unit.web.test_api import Told, ports, serving
from tests.unit.web.test_console import Page

VIEW = overviews.failover()
NOW = overviews.NOW
RUNNING = consoles.running(VIEW)
FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "text/html"}
ADDRESSES = (
    "/fleet", "/incidents", "/pools/primary", "/pools/gateway", "/matrix", "/matrix/P0/pin", "/matrix/none/brake",
    "/drills", "/drills/halt", "/drills/resume", "/drills/run/node-kill", f"/drills/{overviews.DRILL_ID}/live",
    f"/drills/{overviews.DRILL_ID}/abort", "/drills/drill-20261103-020000-node-kill",
)  # fmt: skip


@dataclass(slots=True)
class Reader:
    """Somebody at the console, by a token."""

    session: aiohttp.ClientSession
    url: str
    told: Told
    role: Role = Role.OPERATOR

    async def get(self, path: str) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {text_of(self.role)}", "accept": "text/html"}
        async with self.session.get(self.url + path, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/html")
            return answer.status, await answer.text()

    async def send(self, path: str, **fields: str) -> tuple[int, str]:
        """Send a form; the second is where it leads, or what the page says."""
        headers = {**FORM, "authorization": f"Bearer {text_of(self.role)}"}
        body = urlencode({name.rstrip("_"): value for name, value in fields.items()})
        async with self.session.post(self.url + path, data=body, headers=headers, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("location") or Page(await answer.text()).text


@asynccontextmanager
async def console(view: Overview = VIEW, asked: consoles.Asked | None = None) -> AsyncIterator[Reader]:
    told = Told(pages=asked or consoles.Asked())

    async def overview() -> Overview:
        return view

    made = replace(
        ports(told), overview=overview, standing=lambda: view.standing, incident_pages=incident_pages.ports(view),
        console=consoles.ports(view, told.pages, told.doors.audit),
    )  # fmt: skip
    async with serving(build_app(made)) as url, aiohttp.ClientSession() as session:
        yield Reader(session, url, told)


# -- every page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", ["failover", "idle", "empty", "hostile", "large"])
async def test_every_page_is_whole_on_any_overview(sample: str) -> None:
    view = overviews.SAMPLES[sample]()
    async with console(view) as reader:
        reader.role = Role.ADMIN
        for path in (*ADDRESSES, "/audit"):
            status, html = await reader.get(path)
            page = Page(html)
            assert (page.misnested, page.open) == ([], []), path
            assert status in (200, 404), path
            assert [tag for tag, _ in page.elements].count("h1") == 1, path
            assert "<script>alert" not in html, path
            assert "<img" not in html, path
            ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
            assert len(ids) == len(set(ids)), path
            assert all("style" not in attributes for _, attributes in page.elements), path


async def test_the_navigation_says_where_one_is_and_shows_the_log_to_admins_only() -> None:
    async with console() as reader:
        for path, name in (("/", "Overview"), ("/pools/primary", "Fleet"), ("/matrix/P0/pin", "Matrix")):
            drawn = Page((await reader.get(path))[1])
            here = [a for a in drawn.all("a") if a.get("aria-current") == "page" and not a["href"].startswith("/pools")]
            assert [a["href"] for a in here] == [{n: p for p, n in Frame().nav}[name]]
            assert "/audit" not in [a["href"] for a in drawn.all("a")]
        reader.role = Role.ADMIN
        assert "/audit" in [a["href"] for a in Page((await reader.get("/"))[1]).all("a")]


async def test_what_was_done_is_said_by_key_and_no_address_can_make_a_page_say_anything_else() -> None:
    async with console() as reader:
        assert SAID["pin"] in Page((await reader.get("/matrix?said=pin"))[1]).text
        html = (await reader.get("/matrix?said=Your+session+is+over%2C+go+to+evil.example"))[1]
        assert "evil.example" not in html
        assert 'data-fragment="/matrix/fragment"' in (await reader.get("/matrix?said=pin"))[1]


async def test_a_fragment_is_the_main_of_its_page_with_what_was_asked_of_it() -> None:
    async with console() as reader:
        whole = (await reader.get("/fleet?state=down&pool=primary"))[1]
        assert 'data-fragment="/fleet/fragment?state=down&amp;pool=primary"' in whole
        part = (await reader.get("/fleet/fragment?state=down&pool=primary"))[1]
        assert part.startswith("<main ") or part.lstrip().startswith("<main ")
        assert part.strip() in whole


async def test_problems_are_told_to_browsers_in_words_and_to_machines_in_json() -> None:
    async with console() as reader:
        for path in ("/nowhere", "/pools/nothing", "/matrix/P9/pin", "/matrix/P0/brake", "/matrix/none/release",
                     "/drills/run/nothing", "/drills/nothing", "/runbooks/nothing"):  # fmt: skip
            status, html = await reader.get(path)
            assert status == 404, path
            assert "Status 404" in Page(html).text, path
        headers = {"authorization": f"Bearer {text_of(Role.VIEWER)}"}
        async with reader.session.get(reader.url + "/nowhere", headers=headers) as answer:
            assert answer.headers["content-type"] == "application/problem+json"
        headers["accept"] = "text/html"
        async with reader.session.get(reader.url + "/api/v1/nowhere", headers=headers) as answer:
            assert answer.headers["content-type"] == "application/problem+json"


async def test_a_mistake_of_ours_is_told_in_words_too_and_behind_the_same_headers() -> None:
    told = Told()

    async def broken() -> Overview:
        raise RuntimeError("a mistake")

    app = build_app(replace(ports(told), console=replace(consoles.ports(VIEW), overview=broken)))
    async with serving(app) as url, aiohttp.ClientSession() as session:
        headers = {"authorization": f"Bearer {text_of(Role.VIEWER)}", "accept": "text/html"}
        async with session.get(f"{url}/", headers=headers) as answer:
            assert answer.status == 500
            assert answer.headers["content-type"].startswith("text/html")
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            text = Page(await answer.text()).text
            assert "Something went wrong in the control plane" in text
            assert "a mistake" not in text


# -- the fleet ---------------------------------------------------------------------------------------------------------


def test_a_thousand_endpoints_are_cells_with_a_mark_and_a_table_of_the_worst_first() -> None:
    view = overviews.large()
    made = fleet_view(view.standing, read_asked({}), NOW, "1")
    assert (made.total, made.found, made.pages) == (1003, 1003, 21)
    assert [seen.endpoint.name for seen in made.rows[:4]] == ["primary-17", "primary-230", "primary-231", "primary-5"]
    page = Page(fleet_sheet(made).page(Frame("ann"), "/x"))
    drawn = [a for a in page.all("a") if "cell" in a.get("class", "")]
    assert len(drawn) == 1003
    assert {a["class"] for a in drawn} == {"cell is-up", "cell is-down", "cell is-unknown"}
    assert drawn[18]["aria-label"] == "primary-17 down, node-b"
    assert drawn[18]["href"] == "/pools/primary?endpoint=primary-17"
    assert "✕" in page.text


def test_the_fleet_is_filtered_and_turned_over_by_its_address() -> None:
    view = overviews.large()
    down = fleet_view(view.standing, read_asked({"state": "down"}), NOW, "1")
    assert [seen.endpoint.name for seen in down.rows] == ["primary-17", "primary-230", "primary-231"]
    node = fleet_view(view.standing, read_asked({"node": "node-a", "pool": "primary"}), NOW, "1")
    assert node.found == 250
    assert {seen.endpoint.node for seen in node.rows} == {"node-a"}
    last = fleet_view(view.standing, read_asked({"page": "9999"}), NOW, "1")
    assert (last.asked.page, len(last.rows)) == (21, 1003 - 20 * ROWS)
    assert last.asked.path(2) == "/fleet?page=2"
    for odd in ("0", "-1", "²", "x", "1" * 40):
        assert read_asked({"page": odd, "state": "odd"}).page == 1
    assert fleet_view(view.standing, read_asked({"pool": "nothing"}), NOW, "1").groups == ()


def test_a_hostile_endpoint_is_text_in_its_cell() -> None:
    bad = Endpoint(overviews.HOSTILE, "primary", "http://x", overviews.HOSTILE)
    drawn = Page(f"<ul>{cells(overviews.HOSTILE, [EndpointStanding(bad, up=None, since=None)])}</ul>")
    assert (drawn.misnested, drawn.open) == ([], [])
    assert [tag for tag, _ in drawn.elements] == ["ul", "li", "a"]


# -- a pool ------------------------------------------------------------------------------------------------------------


async def test_a_pool_shows_its_signals_with_their_thresholds_shaded_and_the_endpoint_that_was_asked_for() -> None:
    view = overviews.idle()
    async with console(view) as reader:
        drawn = Page((await reader.get("/pools/primary?endpoint=primary-1"))[1])
        assert "Endpoint primary-1" in drawn.text
        pictures = [svg["aria-label"] for svg in drawn.all("svg") if svg.get("role") == "img"]
        assert any(text.startswith("latency_p99 from ") for text in pictures)
        assert {"shade-warn", "shade-breach"} <= {rect.get("class", "") for rect in drawn.all("rect")}
        assert "Endpoint primary-1" not in Page((await reader.get("/pools/primary?endpoint=other"))[1]).text


@pytest.mark.parametrize(
    ("signal", "values", "shades"),
    [
        ("latency_p99", (0.1, 3.0), [("warn", 2), ("breach", 2)]),
        ("availability", (1.0, 0.2), [("warn", 2), ("breach", 2)]),
        ("latency_p99", (0.1, 0.2), []),
    ],
)
def test_bands_are_shaded_whichever_way_a_signal_gets_worse(
    signal: str, values: tuple[float, float], shades: list[tuple[str, int]]
) -> None:
    threshold = incident_pages.policy().thresholds[signal]
    trace = Trace("primary", signal, ((0.0, values[0]), (60.0, values[1])))
    (chart,) = charts((trace,), {signal: threshold}, (), (signal,))
    assert [shade.band for shade in chart.shades] == [band for band, _ in shades]
    if shades:
        warn, breach = chart.shades
        nearer_the_edge = breach.y < warn.y if signal == "latency_p99" else breach.y > warn.y
        assert nearer_the_edge
        assert all(shade.height > 0 for shade in chart.shades)


# -- the matrix --------------------------------------------------------------------------------------------------------


def test_a_lever_says_from_where_to_where_traffic_would_go_before_anybody_moves_it() -> None:
    standing = overviews.idle().standing
    facts = dict(preview(standing, LEVERS["pin"], Level.P0))
    assert facts["Traffic"] == ("primary 100% → standby 100%", "answers are marked with level P0")
    assert facts["The gate asks"] == ("pool standby is ok: 1 of 1 endpoints up",)
    assert dict(preview(standing, LEVERS["pin"], Level.P2))["Traffic"][0] == "primary 100% → primary 50%, base 50%"
    failed = overviews.failover().standing
    assert dict(preview(failed, LEVERS["release"], Level.P0))["Traffic"][0] == "standby 100% → primary 100%"
    assert (
        "in steps of 10%, 50%, 100%, each watched for 30 s" in dict(preview(failed, LEVERS["release"], Level.P0))["How"]
    )
    assert dict(preview(failed, LEVERS["brake"], Level.NONE))["Traffic stays"] == ("standby 100%",)
    assert "nothing" in dict(preview(failed, LEVERS["refuse"], Level.P2))["Moves"][0]


def test_only_levers_that_mean_something_now_are_offered() -> None:
    standing = overviews.idle().standing
    row = standing.rows[0]
    assert offered(row, standing) == ("pin",)
    waits = replace(row, phase=Phase.PENDING, awaits_approval=True)
    assert offered(waits, standing) == ("pin", "approve", "refuse")
    assert offered(replace(row, phase=Phase.ENGAGED), standing) == ("pin", "release")
    assert whole_offered(standing) == ("brake", "pin")
    assert whole_offered(replace(standing, braked=True)) == ("unbrake", "pin")


@pytest.mark.parametrize(
    ("path", "fields", "called"),
    [
        ("/matrix/P0/pin", {"for_": "30m"}, "the operator: pin P0 for 0:30:00: because"),
        ("/matrix/none/pin", {}, "the operator: pin none: because"),
        ("/matrix/P0/unpin", {}, "the operator: end pin P0: because"),
        ("/matrix/P2/approve", {}, "the operator: approve P2: because"),
        ("/matrix/P2/refuse", {}, "the operator: refuse P2: because"),
        ("/matrix/P0/release", {}, "the operator: release P0: because"),
        ("/matrix/none/brake", {}, "the operator: brake none: because"),
        ("/matrix/none/unbrake", {}, "the operator: end brake none: because"),
        ("/drills/halt", {}, "halt for the operator: because"),
        ("/drills/resume", {}, "resume for the operator"),
        ("/drills/run/node-kill", {}, "start node-kill for the operator"),
        (f"/drills/{overviews.DRILL_ID}/abort", {}, f"stop {overviews.DRILL_ID} for the operator: because"),
    ],
)
async def test_every_form_asks_the_ports_in_the_name_of_whoever_sent_it_and_leads_back(
    path: str, fields: dict[str, str], called: str
) -> None:
    async with console() as reader:
        status, location = await reader.send(path, why="because", who="somebody else", **fields)
        assert status == 303, location
        assert reader.told.pages.calls == [called]
        where, _, said = location.partition("?said=")
        assert said in SAID
        assert (await reader.get(where))[0] == 200
        rows = [link.deed for link in reader.told.doors.audit.links if link.deed.action.startswith("POST")]
        assert [(deed.who, deed.why, deed.outcome) for deed in rows] == [
            ("the operator", "because", "asked"), ("the operator", "because", "done 303"),
        ]  # fmt: skip


async def test_a_form_without_a_reason_or_with_a_wrong_one_comes_back_and_asks_nothing() -> None:
    async with console() as reader:
        for path, fields, says in (
            ("/matrix/P0/pin", {"why": " "}, "Say why"),
            ("/matrix/P0/pin", {"why": "x" * 501}, "at most 500 characters"),
            ("/matrix/P0/pin", {"why": "x", "for_": "soon"}, "soon is no length of time"),
            ("/matrix/P0/pin", {"why": "x", "for_": "31d"}, "from a moment to 30 days"),
            ("/drills/halt", {}, "Say why"),
            ("/drills/run/node-kill", {}, "Say why"),
            (f"/drills/{overviews.DRILL_ID}/abort", {}, "Say why"),
        ):
            status, text = await reader.send(path, **fields)
            assert (status, says in text) == (422, True), path
        assert reader.told.pages.calls == []


async def test_what_is_refused_is_said_on_the_page_that_asked_with_what_was_written() -> None:
    async with console(asked=consoles.Asked(refused="the standby <b>gave</b> no answer")) as reader:
        for path in (
            "/matrix/P0/pin",
            "/matrix/P0/unpin",
            "/drills/run/node-kill",
            f"/drills/{overviews.DRILL_ID}/abort",
        ):
            status, text = await reader.send(path, why="because of <i>this</i>")
            assert status == 409, path
            assert "the standby <b>gave</b> no answer" in text, path
        asks = Page((await reader.get("/drills/run/node-kill"))[1])
        assert "Gate closed: the standby <b>gave</b> no answer" in asks.text
        assert "Now: the standby <b>gave</b> no answer" in Page((await reader.get("/matrix/P0/pin"))[1]).text


async def test_a_viewer_may_look_at_every_page_and_send_no_form() -> None:
    async with console() as reader:
        reader.role = Role.VIEWER
        for path in ADDRESSES:
            status, html = await reader.get(path)
            assert status == 200, path
            assert '<form class="act"' not in html, path
        status, text = await reader.send("/matrix/P0/pin", why="x")
        assert status == 403
        assert "This needs an operator" in text
        assert reader.told.pages.calls == []


# -- drills ------------------------------------------------------------------------------------------------------------


async def test_the_drills_show_the_plan_the_score_and_which_experiment_cannot_be_run() -> None:
    async with console() as reader:
        text = Page((await reader.get("/drills"))[1]).text
        assert "node-kill in 9 d, 1 Dec 2026 02:00 UTC plan monthly" in text
        assert "2026-11" in text
        assert "it names no row: a drill proves one row" in text
        assert "running node-kill since" in text
        asks = Page((await reader.get("/drills/run/node-kill"))[1]).text
        assert "breaks primary-0 of pool primary" in asks
        assert "no freeze" in asks


async def test_a_drill_that_runs_has_a_live_page_and_one_that_ended_its_report() -> None:
    assert isinstance(RUNNING, Drill)
    async with console() as reader:
        html = (await reader.get(f"/drills/{RUNNING.id}"))[1]
        assert f'data-fragment="/drills/{RUNNING.id}/live/fragment"' in html
        assert f"/drills/{RUNNING.id}/abort" in html
        assert "process group 48120 is gone" in Page(html).text
        report = (await reader.get("/drills/drill-20261103-020000-node-kill"))[1]
        assert "data-fragment" not in report
        assert "Since the fault" in Page(report).text
        over = (await reader.get("/drills/drill-20261103-020000-node-kill/live"))[1]
        assert "data-fragment" not in over
        assert "Report of this drill" in Page(over).text
        ended = Page((await reader.get("/drills/drill-20261103-020000-node-kill/abort"))[1])
        assert "the drill is over: passed" in ended.text


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_the_log_is_read_by_who_and_what_page_by_page() -> None:
    book = MemoryAudit()
    for number in range(250):
        who, action = ("ann", "POST /matrix/P0/pin") if number % 5 == 0 else ("bob", "POST /api/v1/heal")
        at = NOW - timedelta(minutes=250 - number)
        await book.append(Deed(at, who, "operator", "x", "127.0.0.1", action, "why", "done 200"))
    first = await audit_view(book, "", "", None, NOW, "1")
    assert (len(first.links), first.older) == (100, "/audit?before=151")
    found = await audit_view(book, "ann", "matrix", None, NOW, "1")
    assert (len(found.links), found.older) == (50, "")
    assert {link.deed.who for link in found.links} == {"ann"}
    many = await audit_view(book, "bob", "", None, NOW, "1")
    assert len(many.links) == 100
    rest = await audit_view(book, "bob", "", int(re.findall(r"before=(\d+)", many.older)[0]), NOW, "1")
    assert len(rest.links) == 100
    assert not {link.number for link in rest.links} & {link.number for link in many.links}
    assert (await audit_view(book, "eve", "", None, NOW, "1")).links == ()
