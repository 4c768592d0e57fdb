"""The console in a real browser: people log in, run a drill, stop it, read an incident; with and without a script.

What is looked at for accessibility is the whole application on made-up values (`tests/support/site.py`), so that every
page has something on it; the journeys go to a real control plane. Pictures are left in `build/screenshots`.
"""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest

from controlplane.security.roles import Role
from tests.support import overviews
from tests.support.browsers import DESK, PHONE, Tab, tab
from tests.support.doors import FILE_TOKEN, text_of
from tests.support.processes import Fleet, Plane, quick_experiments, until
from tests.support.site import Site, served

pytestmark = [pytest.mark.journey, pytest.mark.debian("chromium-headless-shell")]

SECTIONS = ("Where traffic goes", "What users get", "Faults in force", "Degradation matrix", "Error budgets",
            "Next drill", "Incidents", "Pools", "Drills", "Receipts")  # fmt: skip
PAGES: Mapping[str, str] = {
    "overview": "/",
    "fleet": "/fleet",
    "fleet-down": "/fleet?state=down&pool=primary",
    "pool": "/pools/primary?endpoint=primary-0",
    "pool-gateway": "/pools/gateway",
    "matrix": "/matrix",
    "matrix-pin": "/matrix/P0/pin",
    "drills": "/drills",
    "drill-preview": "/drills/run/node-kill",
    "drill-running": f"/drills/{overviews.DRILL_ID}/live",
    "drill-abort": f"/drills/{overviews.DRILL_ID}/abort",
    "drill-report": "/drills/drill-20261103-020000-node-kill",
    "halt": "/drills/halt",
    "incidents": "/incidents",
    "incident": "/incidents/inc-20261121-030401",
    "incident-report": "/incidents/inc-20261121-030401/report",
    "runbooks": "/runbooks",
    "runbook": "/runbooks/P0-switch-to-standby",
    "audit": "/audit",
    "nothing-there": "/nowhere",
}
LEVEL = "document.getElementById('level-title').textContent.trim()"
LIVE = "document.getElementById('live').dataset.state"


# -- every page, on made-up values -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with served(overviews.failover()) as site:
        yield site


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("window"), FILE_TOKEN) as page:
        yield page


def without_barriers(page: Tab, name: str) -> None:
    """Look at an open page in both schemes and on a phone: nothing keeps people out, and nothing sticks out."""
    for scheme, size, dark in (("light", DESK, False), ("dark", DESK, True), ("phone", PHONE, True)):
        page.look_like(size, dark=dark)
        assert page.barriers() == [], scheme
        assert page.value("document.documentElement.scrollWidth") <= size[0], scheme
        page.photograph(f"{name}-{scheme}")


@pytest.mark.parametrize("name", PAGES)
def test_no_page_keeps_anybody_out_in_either_scheme_or_on_a_phone(site: Site, window: Tab, name: str) -> None:
    window.look_like()
    window.open(site.url + PAGES[name], settle_s=0.2)
    without_barriers(window, name)
    assert [said for said in window.complaints() if "/nowhere" not in said] == []


def test_the_login_keeps_nobody_out(site: Site, tmp_path: Path) -> None:
    with tab(tmp_path) as page:
        page.look_like()
        page.open(f"{site.url}/matrix")
        assert page.path == "/login"
        page.fill("input[name=token]", "wrong")
        page.press("main form button")
        without_barriers(page, "login-wrong")


def test_a_thousand_endpoints_keep_nobody_out(tmp_path: Path) -> None:
    with served(overviews.large()) as site, tab(tmp_path, FILE_TOKEN) as page:
        page.look_like()
        page.open(f"{site.url}/fleet")
        assert page.value("document.querySelectorAll('a.cell').length") == 1003
        without_barriers(page, "fleet-1000")


def test_the_keyboard_alone_leads_past_the_navigation_to_a_lever(site: Site, window: Tab) -> None:
    window.look_like()
    window.open(f"{site.url}/matrix")
    window.key("Tab")
    assert window.value("document.activeElement.className") == "skip"
    window.key("Enter")
    assert window.value("document.activeElement.id") == "main"
    window.key("Tab")
    assert window.value("document.activeElement.textContent") == "Pull the brake"
    assert window.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


# -- journeys on a real control plane ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("browser") / "run") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def plane(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    experiments = quick_experiments(tmp_path_factory.mktemp("drills") / "experiments", "90s")
    with Plane(fleet.page, experiments) as plane:
        plane.until_ready()
        yield plane


def log_in(page: Tab, plane: Plane) -> None:
    page.open(plane.url)
    assert page.path == "/login"
    page.fill("input[name=token]", plane.token)
    page.press("main form button")
    assert page.path == "/"


def test_the_page_shows_the_level_and_the_browser_has_nothing_to_complain_about(plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path, plane.token) as page:
        page.open(plane.url)
        assert "Normal" in page.value("document.title")
        assert "reference" in page.value("document.querySelector('header').textContent")
        # A pool that answers late on a busy machine is in a worse band, and no level follows from it.
        assert page.value(LEVEL).startswith(("Normal", "No level in force"))
        assert page.value("getComputedStyle(document.querySelector('.banner')).display") != "inline"
        until(lambda: page.value(LIVE) == "live", 30, "the stream is open")
        assert page.complaints() == []
        assert page.asked()
        assert all(url.startswith(plane.url) for url in page.asked())


def test_a_person_logs_in_halts_drills_with_a_reason_and_logs_out(plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path) as page:
        page.open(plane.url)
        page.fill("input[name=token]", "wrong")
        page.press("main form button")
        assert "opens nothing here" in page.value("document.getElementById('said').textContent")
        log_in(page, plane)
        assert page.value("document.cookie") == "", "no script can read the session"
        page.press("#drills a[href='/drills/halt']")
        assert "every drill, scheduled ones too" in page.text
        page.fill("input[name=why]", "a person says so")
        page.press("main form button")
        assert page.path == "/drills"
        assert "Drills are halted" in page.text
        assert plane.get("/api/v1/halt")["halt"]["by"] == "local"
        page.press("main a[href='/drills/resume']")
        page.press("main form button")
        assert "Drills may start again" in page.text
        assert plane.get("/api/v1/halt")["halt"] is None
        rows = {row["action"]: row for row in plane.get("/api/v1/audit") if row["outcome"] == "done 303"}
        assert rows["POST /drills/halt"]["why"] == "a person says so"
        assert rows["POST /drills/halt"]["credential"].startswith("session of file-")
        page.press(".visitor button")
        assert page.path == "/login"
        page.open(plane.url)
        assert page.path == "/login"
        assert [said for said in page.complaints() if "401" not in said] == []


def test_a_drill_is_previewed_run_watched_on_open_pages_and_aborted(fleet: Fleet, plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path) as page:
        log_in(page, plane)
        page.value("window.sameDocument = 'yes'")
        other = page.beside()
        other.open(f"{plane.url}/drills")
        plane.until_open("node-kill")
        other.press("a[href='/drills/run/node-kill']")
        assert "breaks primary-0, primary-1 of pool primary" in other.text
        assert "what is left can serve" in other.text
        other.fill("input[name=why]", "to see it work")
        plane.until_open("node-kill")
        other.press("main form button")
        assert "The drill has begun" in other.text
        drill_id = other.path.split("/")[2]
        plane.until_proven()
        until(lambda: other.value("document.querySelectorAll('.leases li').length") == 2, 30, "its faults show, live")
        assert "node-kill" in other.text
        until(lambda: "P0 in force" in page.value(LEVEL), 30, "the banner shows P0")
        assert page.value("document.title").startswith("P0")
        assert "endpoints_down" in page.value("document.querySelector('.banner .why').textContent")
        assert "standby 100%" in page.value("document.querySelector('svg.split').getAttribute('aria-label')")
        page.photograph("real-overview-p0")
        seen_at_its_incident(page.beside(), plane, drill_id)
        other.press("main a[href$='/abort']")
        assert "node-kill on primary-0" in other.text
        other.fill("input[name=why]", "seen enough")
        other.press("main form button")
        assert other.path == f"/drills/{drill_id}/live"
        until(
            lambda: "aborted" in other.value("document.querySelector('h1').textContent"), 40, "the page shows its end"
        )
        assert "aborted by local: seen enough" in other.text
        ended = plane.get(f"/api/v1/drills/{drill_id}")
        assert (ended["outcome"], ended["requested_by"]) == ("aborted", "local")
        assert fleet.holds() == []
        until(lambda: "Normal" in page.value("document.title"), 30, "the page shows the end")
        assert page.value("window.sameDocument") == "yes"
        assert page.complaints() == []
        assert "seen enough" in [row["why"] for row in plane.get("/api/v1/audit")]
    fleet.until_back()
    plane.until_level("none")


def seen_at_its_incident(page: Tab, plane: Plane, drill_id: str) -> None:
    """Go to the open incident from the front page: it names its drill, what was done, and what to do by hand."""
    page.open(plane.url)
    page.press("#incidents details[open] a[href^='/incidents/']")
    assert "Likely causes" in page.text
    assert drill_id in page.text
    assert "switch_pool to standby" in page.text
    assert page.value(LIVE) in ("live", "static", "reconnecting")
    page.photograph("real-incident")
    page.press("#handling form[action$='/acknowledge'] button")
    assert "Acknowledged: by local" in page.text


def test_without_javascript_the_page_is_whole_and_says_that_it_stands_still(plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path, plane.token) as page:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(plane.url)
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        text = page.text.lower()
        for section in SECTIONS:
            assert section.lower() in text
        assert "does not update by itself without javascript" in text
        assert page.value(LIVE) == "static"
        assert page.complaints() == []


class Plain:
    """Somebody with a browser that knows forms and cookies, and nothing else."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._opener.addheaders = [("accept", "text/html")]

    def get(self, path: str) -> str:
        return self._read(self._url + path)

    def send(self, path: str, page: str, **fields: str) -> str:
        """Send the form of a page that was read before; what it hides goes with it."""
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.partition("<main")[2]))
        return self._read(self._url + path, urlencode(hidden | fields).encode())

    def _read(self, url: str, body: bytes | None = None) -> str:
        try:
            answer = self._opener.open(url, body, timeout=20)
        except urllib.error.HTTPError as refused:  # An answer like any other, for somebody who reads.
            answer = refused
        with answer:
            assert answer.headers["content-type"].startswith("text/html"), url
            return str(answer.read().decode())


def test_a_lever_is_moved_with_forms_alone(plane: Plane) -> None:
    person = Plain(plane.url)
    inside = person.send("/login", person.get("/"), token=plane.token, next="/matrix")
    assert '<h1 id="rows-title">Degradation matrix' in inside
    asks = person.get("/matrix/none/brake")
    assert "Nothing engages or is given back by itself" in asks
    assert "Say why" in person.send("/matrix/none/brake", asks, why=" ")
    assert not plane.standing()["braked"]
    assert "The brake is on" in person.send("/matrix/none/brake", asks, why="no script <b>here</b>")
    assert plane.standing()["brake"]["why"] == "no script <b>here</b>"
    assert "the brake is on already" in person.send("/matrix/none/brake", asks, why="again")
    back = person.get("/matrix/none/unbrake")
    assert "this session" in person.send("/matrix/none/unbrake", "<main", why="without what the page told")
    assert plane.standing()["braked"]
    assert "The brake is off" in person.send("/matrix/none/unbrake", back, why="done")
    assert not plane.standing()["braked"]
    assert "There is no such lever" in person.get("/matrix/none/nothing")


def test_a_viewer_sees_why_not(site: Site) -> None:
    viewer = Plain(site.url)
    inside = viewer.send("/login", viewer.get("/"), token=text_of(Role.VIEWER), next="/matrix")
    assert "Pin P0: an operator may" in inside
    asks = viewer.get("/matrix/P0/pin")
    assert "this needs an operator" in asks
    assert "Pin it" not in asks
    told = len(site.asked.calls)
    csrf = re.search(r'name="csrf" value="([^"]+)"', asks)
    assert csrf
    refused = viewer.send("/matrix/P0/pin", "<main", csrf=csrf[1], why="because")
    assert "This needs an operator" in refused
    assert len(site.asked.calls) == told


def test_a_plain_get_has_every_section_and_the_headers_that_keep_foreign_scripts_out(plane: Plane) -> None:
    answer = plane.ask("/")
    for section in SECTIONS:
        assert section in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in answer.text
