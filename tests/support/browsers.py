"""A page in headless Chromium: opened, read, pressed, photographed, and looked at with axe-core for accessibility.

The browser is spoken to in the DevTools protocol (`scripts/screenshot.py`), which the pages' content security policy
does not stop: what a page itself may not do stays visible as a complaint.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from scripts.screenshot import Browser, ScreenshotError, find_browser

AXE = Path(__file__).resolve().parents[1] / "data" / "axe" / "axe.min.js"
AXE_SHA256 = "7dbfabdfc6062936d79c873ddbb5f811a1219fca3928bd8cc9dd81f1e65f4720"
"""Of axe-core 4.11.1."""
LOOKED_FOR = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
PICTURES = Path(__file__).resolve().parents[2] / "build" / "screenshots"
"""Where pictures are left for people; not committed."""
PHONE = (390, 844)
DESK = (1280, 900)
WITHIN_S = 100.0
"""How long everything with one page may take, from before it is loaded until the next one is: less than a test may."""
TALLEST = 16_000
"""Chromium's own limit for one picture is 16,384 pixels."""


@cache
def axe() -> str:
    """Return the accessibility engine's source, checked to be the one that was pinned."""
    text = AXE.read_bytes()
    assert hashlib.sha256(text).hexdigest() == AXE_SHA256
    return text.decode()


class Tab:
    """One page in the browser."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self._width = DESK[0]

    def beside(self) -> "Tab":
        """Open another page in the same browser, with the same session."""
        return Tab(self._browser)

    def call(self, method: str, **params: object) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def look_like(self, size: tuple[int, int] = DESK, *, dark: bool = False) -> None:
        """Choose the window, and which colours the person likes."""
        self._width, height = size
        self._size(height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def _size(self, height: int) -> None:
        small = self._width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=self._width, height=height, deviceScaleFactor=1, mobile=small
        )

    def open(self, url: str, settle_s: float = 0.5) -> None:
        self._loaded(lambda: self.call("Page.navigate", url=url), settle_s)

    def press(self, selector: str) -> None:
        """Press what leads to another page, and wait for that."""
        self._loaded(lambda: self.value(f"document.querySelector({json.dumps(selector)}).click()"), 0.3)

    def _loaded(self, act: Any, settle_s: float) -> None:
        """Wait for the next load; complaints of earlier pages are kept."""
        self._browser.give_up_in(WITHIN_S)
        events = self._browser._events
        events[:] = [event for event in events if event.get("method") != "Page.loadEventFired"]
        went = act()
        assert not (isinstance(went, dict) and went.get("errorText")), went
        self._browser.wait_for("Page.loadEventFired")
        self._browser.settle(settle_s)

    def fill(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.value(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")

    def key(self, name: str) -> None:
        """Press a key, such as `Tab` or `Enter`."""
        code = {"Tab": 9, "Enter": 13}[name]
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **text)

    def value(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    @property
    def path(self) -> str:
        return str(self.value("location.pathname"))

    @property
    def text(self) -> str:
        return str(self.value("document.body.innerText"))

    def complaints(self) -> list[str]:
        """Errors of scripts, of the network and of the content security policy; and what scripts logged as errors."""
        self._browser.settle(0.1)
        logged = [e["params"] for e in self._browser._events if e.get("method") == "Runtime.consoleAPICalled"]
        return self._browser.complaints() + [str(p["args"]) for p in logged if p["type"] in ("error", "warning")]

    def asked(self) -> list[str]:
        """Every address the page asked for."""
        sent = [e["params"] for e in self._browser._events if e.get("method") == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in sent]

    def photograph(self, name: str) -> Path:
        """Leave a picture of the whole page in `build/screenshots`."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        tall = min(int(self.value("document.documentElement.scrollHeight")), TALLEST)
        self._size(max(tall, 400))
        shot = self.call("Page.captureScreenshot", format="png")
        self._size(PHONE[1] if self._width < 600 else DESK[1])
        picture = PICTURES / f"{name}.png"
        picture.write_bytes(base64.b64decode(shot["data"]))
        return picture

    def barriers(self) -> list[str]:
        """Return what axe-core says keeps people out, one line an element; empty when nothing does."""
        self.call("Runtime.evaluate", expression=axe())
        asked = json.dumps({"runOnly": {"type": "tag", "values": LOOKED_FOR}, "resultTypes": ["violations"]})
        found = json.loads(self.value(f"axe.run(document, {asked}).then(r => JSON.stringify(r.violations))"))
        return [
            f"{rule['id']} ({rule['impact']}): {node['html'][:160]}: {node['failureSummary'][:200]}"
            for rule in found
            for node in rule["nodes"]
        ]


@contextmanager
def tab(profile: Path, token: str = "") -> Iterator[Tab]:
    """Open a browser; a token goes with whatever it asks for."""
    try:
        program = find_browser()
    except ScreenshotError as missing:
        pytest.skip(str(missing))
    browser = Browser([program, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
    browser.give_up_in(WITHIN_S)
    try:
        page = Tab(browser)
        if token:
            page.call("Network.setExtraHTTPHeaders", headers={"authorization": f"Bearer {token}"})
        yield page
    finally:
        browser.close()
