#!/usr/bin/env python3
"""Photograph a page of the console with headless Chromium; a person runs it, and so does whoever renews the pictures.

    scripts/screenshot.py http://127.0.0.1:8080/ console.png --width 1440 --dark
    scripts/screenshot.py --sample failover console.png      # no server needed: draws a made-up overview

The console holds an event stream open, so Chromium's own `--screenshot` would wait for ever for it: this speaks the
DevTools protocol to the browser over a pipe, waits for the load and a moment for the stream, and takes the picture.
What the browser reports as an error (a blocked script, a broken style sheet) is printed and makes the exit status 1.
"""

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DEADLINE_S = 30.0
"""For the whole visit."""
SETTLE_S = 0.8
"""After the load: the stream opens, the first update comes, fonts and layout settle."""
MAX_HEIGHT = 16_000
"""Chromium's own limit for one picture is 16,384 pixels."""


class ScreenshotError(Exception):
    """No picture could be taken; the text says why and what to do."""


class Browser:
    """One headless Chromium, spoken to in the DevTools protocol: messages of JSON, ended by a NUL, over two pipes."""

    def __init__(self, command: list[str]) -> None:
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        self._ids = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        self._rest = b""
        self._give_up_at = time.monotonic() + DEADLINE_S

        def place_pipes() -> None:
            """Chromium reads commands from descriptor 3 and answers on 4; moving them takes no lock of any thread."""
            commands, answers = os.dup(to_child), os.dup(from_child)
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            command,
            preexec_fn=place_pipes,  # noqa: PLW1509 - see its docstring
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        os.set_blocking(self._from, False)

    def give_up_in(self, seconds: float) -> None:
        """Give it so long from now on."""
        self._give_up_at = time.monotonic() + seconds

    def close(self) -> None:
        """End the browser: asked to, it ends its helpers first, so that nothing writes to the profile afterwards."""
        with suppress(ScreenshotError):
            self.call("Browser.close")
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def call(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        """Send one command and wait for its result."""
        number = next(self._ids)
        message: dict[str, object] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        try:
            left = json.dumps(message).encode() + b"\0"
            while left:  # A long script does not fit into the pipe at once.
                left = left[os.write(self._to, left) :]
        except BrokenPipeError as error:
            raise ScreenshotError("the browser ended before it took a picture") from error
        while True:
            answer = self._next()
            if answer.get("id") == number:
                if "error" in answer:
                    raise ScreenshotError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def wait_for(self, event: str) -> None:
        """Wait until the browser says that something happened."""
        while all(seen.get("method") != event for seen in self._events):
            self._events.append(self._next())

    def settle(self, seconds: float) -> None:
        """Go on listening for a while."""
        until = time.monotonic() + seconds
        while (message := self._next(until)) is not None:
            self._events.append(message)

    def complaints(self) -> list[str]:
        """Return what the browser reported as errors."""
        found = []
        for event in self._events:
            params = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description", "script error"))
        return found

    def _next(self, until: float | None = None) -> Any:
        """Return the next message; None when `until` (monotonic seconds) comes first."""
        while b"\0" not in self._rest:
            if until is not None and time.monotonic() >= until:
                return None
            if time.monotonic() >= self._give_up_at:
                raise ScreenshotError(f"the page was not ready within {DEADLINE_S:.0f} s")
            try:
                chunk = os.read(self._from, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            if not chunk:
                raise ScreenshotError("the browser ended before it took a picture; try it by hand with --version")
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)


def find_browser() -> str:
    """Return the path of a Chromium."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise ScreenshotError(
        f"no browser is installed (looked for {', '.join(BROWSERS)}): apt-get install chromium-headless-shell"
    )


def photograph(
    url: str, output: Path, width: int, height: int, *, dark: bool, full: bool, token: str = ""
) -> list[str]:
    """Visit a page and write a PNG of it.

    Args:
        url: the page.
        output: where the picture goes.
        width: of the window, in CSS pixels.
        height: of the window; with `full` the least height of the picture.
        dark: ask for the dark scheme.
        full: take the whole page, not just the window.
        token: goes with every request, for a server that asks.

    Returns:
        What the browser reported as errors.
    """
    with tempfile.TemporaryDirectory(prefix="screenshot-", ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"]
        browser = Browser([find_browser(), *flags, f"--user-data-dir={profile}", "about:blank"])
        try:
            _visit(browser, url, output, width, height, dark=dark, full=full, token=token)
            return browser.complaints()
        finally:
            browser.close()


def _visit(
    browser: Browser, url: str, output: Path, width: int, height: int, *, dark: bool, full: bool, token: str
) -> None:
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Log", "Runtime", "Network"):
        browser.call(f"{domain}.enable", session)
    if token:
        browser.call("Network.setExtraHTTPHeaders", session, headers={"authorization": f"Bearer {token}"})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.call("Emulation.setEmulatedMedia", session, features=[scheme])
    size: dict[str, object] = {"width": width, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.call("Emulation.setDeviceMetricsOverride", session, height=height, **size)
    browser._events.clear()  # noqa: SLF001 - the load of about:blank is not the page's
    went = browser.call("Page.navigate", session, url=url)
    if went.get("errorText"):
        raise ScreenshotError(f"{url} cannot be opened: {went['errorText']}")
    browser.wait_for("Page.loadEventFired")
    browser.settle(SETTLE_S)
    if full:
        content = browser.call("Page.getLayoutMetrics", session)["cssContentSize"]
        if content["width"] > width:
            print(f"warning: the page is {content['width']} px wide, {content['width'] - width} px too many")
        height = min(max(height, int(content["height"])), MAX_HEIGHT)
        browser.call("Emulation.setDeviceMetricsOverride", session, height=height, **size)
        browser.settle(0.2)
    shot = browser.call("Page.captureScreenshot", session, format="png")
    output.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def serve_sample(name: str) -> Iterator[tuple[str, str]]:
    """Serve a made-up overview as the control plane would serve a real one; yields its address and a token for it."""
    sys.path.insert(0, str(ROOT))
    from tests.support.doors import FILE_TOKEN  # noqa: PLC0415 - a picture of a real server needs none of this
    from tests.support.overviews import SAMPLES  # noqa: PLC0415
    from tests.support.site import served  # noqa: PLC0415

    if name not in SAMPLES:
        raise ScreenshotError(f"there is no sample {name}; there are {', '.join(SAMPLES)}")
    with served(SAMPLES[name]()) as site:
        yield site.url, FILE_TOKEN


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Photograph a page of the console with headless Chromium.")
    parser.add_argument("url", nargs="?", help="the page; leave it out with --sample")
    parser.add_argument("output", type=Path, help="where the PNG goes")
    parser.add_argument("--width", type=int, default=1440, help="CSS pixels (default 1440)")
    parser.add_argument("--height", type=int, default=900, help="CSS pixels, at least (default 900)")
    parser.add_argument("--dark", action="store_true", help="ask for the dark scheme")
    parser.add_argument("--window", action="store_true", help="only what the window shows, not the whole page")
    parser.add_argument(
        "--sample", metavar="NAME", help="draw a made-up overview: idle, failover, releasing, empty ..."
    )
    parser.add_argument("--path", default="/", help="which page of the sample (default /)")
    parser.add_argument("--token-file", type=Path, help="file with a token for the server: `run/state/token`")
    args = parser.parse_args()
    if bool(args.url) == bool(args.sample):
        parser.error("give either a URL or --sample NAME")
    wanted = {"dark": args.dark, "full": not args.window}
    try:
        if args.sample:
            with serve_sample(args.sample) as (url, token):
                complaints = photograph(url + args.path, args.output, args.width, args.height, token=token, **wanted)
        else:
            token = args.token_file.read_text(encoding="utf-8").strip() if args.token_file else ""
            complaints = photograph(args.url, args.output, args.width, args.height, token=token, **wanted)
    except (ScreenshotError, OSError) as error:
        print(f"screenshot: {error}", file=sys.stderr)
        return 1
    for complaint in complaints:
        print(f"screenshot: the browser says: {complaint}", file=sys.stderr)
    print(args.output)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
