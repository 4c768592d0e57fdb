"""The console in a real browser: no errors, the level in force, live without a reload, and whole without JavaScript."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.screenshot import Browser, ScreenshotError, find_browser
from tests.support.processes import Fleet, Plane, until

pytestmark = [pytest.mark.journey, pytest.mark.debian("chromium-headless-shell")]

SECTIONS = ("Where traffic goes", "What users get", "Faults in force", "Degradation matrix", "Incidents", "Pools",
            "Drills", "Receipts")  # fmt: skip
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
LEVEL = "document.getElementById('level-title').textContent.trim()"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("browser") / "run") as fleet:
        yield fleet


@pytest.fixture(scope="module")
def plane(fleet: Fleet) -> Iterator[Plane]:
    with Plane(fleet.page) as plane:
        plane.until_ready()
        yield plane


class Tab:
    """One page in the browser."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self._browser._events.clear()

    def call(self, method: str, **params: object) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def open(self, url: str) -> None:
        went = self.call("Page.navigate", url=url)
        assert not went.get("errorText"), went
        self._browser.wait_for("Page.loadEventFired")
        self._browser.settle(0.5)

    def press(self, script: str) -> None:
        """Press a button that leads to another page, and wait for that."""
        self._browser._events.clear()
        self.value(f"{script}.click()")
        self._browser.wait_for("Page.loadEventFired")
        self._browser.settle(0.3)

    def value(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self) -> list[str]:
        """Errors of scripts, of the network and of the content security policy; and what scripts logged as errors."""
        self._browser.settle(0.1)
        logged = [e["params"] for e in self._browser._events if e.get("method") == "Runtime.consoleAPICalled"]
        return self._browser.complaints() + [str(p["args"]) for p in logged if p["type"] in ("error", "warning")]

    def asked(self) -> list[str]:
        """Every address the page asked for."""
        sent = [e["params"] for e in self._browser._events if e.get("method") == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]


@contextmanager
def tab(profile: Path, token: str = "") -> Iterator[Tab]:
    """Open a browser; a token goes with whatever it asks for."""
    try:
        program = find_browser()
    except ScreenshotError as missing:
        pytest.skip(str(missing))
    browser = Browser([program, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
    try:
        page = Tab(browser)
        if token:
            page.call("Network.setExtraHTTPHeaders", headers={"authorization": f"Bearer {token}"})
        yield page
    finally:
        browser.close()


def test_the_page_shows_the_level_and_the_browser_has_nothing_to_complain_about(plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path, plane.token) as page:
        page.open(plane.url)
        assert "Normal" in page.value("document.title")
        assert page.value("document.querySelector('h1').textContent.trim()") == "reference"
        assert "no level" in page.value(LEVEL).lower() or "normal" in page.value(LEVEL).lower()
        assert page.value("getComputedStyle(document.querySelector('.banner')).display") != "inline"
        until(lambda: page.value("document.getElementById('live').dataset.state") == "live", 10, "the stream is open")
        assert page.complaints() == []
        assert page.asked()
        assert all(url.startswith(plane.url) for url in page.asked())


def test_a_person_logs_in_pulls_a_lever_and_logs_out(plane: Plane, tmp_path: Path) -> None:
    button = "document.querySelector('#lever form button')"
    with tab(tmp_path) as page:
        page.open(plane.url)
        assert page.value("location.pathname") == "/login"
        page.value("document.querySelector('input[name=token]').value = 'wrong'")
        page.press("document.querySelector('main form button')")
        assert "opens nothing here" in page.value("document.getElementById('said').textContent")
        page.value(f"document.querySelector('input[name=token]').value = '{plane.token}'")
        page.press("document.querySelector('main form button')")
        assert page.value("location.pathname") == "/"
        assert page.value("document.cookie") == "", "no script can read the session"
        until(lambda: page.value("document.getElementById('live').dataset.state") == "live", 10, "the stream is open")
        page.value("document.getElementById('lever').open = true")
        page.value("document.querySelector('#lever input[name=why]').value = 'a person says so'")
        page.value(f"{button}.click()")
        until(lambda: plane.get("/api/v1/halt")["halt"], 10, "drills are halted")
        assert plane.get("/api/v1/halt")["halt"]["by"] == "local"
        until(lambda: "Resume" in page.value(f"{button}.textContent"), 10, "the page shows it")
        page.value("document.getElementById('lever').open = true")
        page.value(f"{button}.click()")
        until(lambda: plane.get("/api/v1/halt")["halt"] is None, 10, "drills may start again")
        done = [row for row in plane.get("/api/v1/audit") if row["outcome"] == "done 200"]
        assert done[1]["why"] == "a person says so"
        assert done[1]["credential"].startswith("session of file-")
        page.press("document.querySelector('form.visitor button')")
        assert page.value("location.pathname") == "/login"
        page.open(plane.url)
        assert page.value("location.pathname") == "/login"
        assert [said for said in page.complaints() if "401" not in said] == []


def test_a_failover_shows_on_an_open_page_without_a_reload_and_so_does_its_end(
    fleet: Fleet, plane: Plane, tmp_path: Path
) -> None:
    with tab(tmp_path, plane.token) as page:
        page.open(plane.url)
        page.value("window.sameDocument = 'yes'")
        killed = time.monotonic()
        fleet.kill_nodes(held_for_s=2.0)
        until(lambda: "P0 in force" in page.value(LEVEL), 8, "the banner shows P0")
        assert time.monotonic() - killed < 20
        assert page.value("document.title").startswith("P0")
        assert page.value("document.querySelector('.banner-level').textContent.trim()") == "P0"
        assert "endpoints_down" in page.value("document.querySelector('.banner .why').textContent")
        assert "standby 100%" in page.value("document.querySelector('svg.split').getAttribute('aria-label')")
        until(lambda: "Normal" in page.value("document.title"), 15, "the page shows the end")
        assert page.value("window.sameDocument") == "yes"
        incidents = "document.getElementById('incidents').textContent"
        until(lambda: "resolved" in page.value(incidents), 5, "the page shows the incident's end")
        assert page.complaints() == []


def test_without_javascript_the_page_is_whole_and_says_that_it_stands_still(plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path, plane.token) as page:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(plane.url)
        page.call("Emulation.setScriptExecutionDisabled", value=False)
        text = page.value("document.body.innerText").lower()
        for section in SECTIONS:
            assert section.lower() in text
        assert "does not update by itself without javascript" in text
        assert page.value("document.getElementById('live').dataset.state") == "static"
        assert page.complaints() == []


def test_a_plain_get_has_every_section_and_the_headers_that_keep_foreign_scripts_out(plane: Plane) -> None:
    answer = plane.ask("/")
    for section in SECTIONS:
        assert section in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in answer.text


def test_the_page_fits_a_phone(plane: Plane, tmp_path: Path) -> None:
    with tab(tmp_path, plane.token) as page:
        page.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
        page.open(plane.url)
        assert page.value("document.documentElement.scrollWidth") <= 390
