"""A real Alertmanager takes what it is told when a row engages, and what it is told when it is over."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from controlplane.degradation.action import Notify
from controlplane.degradation.actuators.notify import NotifyHand
from controlplane.degradation.errand import ReceiverSpec
from tests.support.processes import Running, ask, free_port, until

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus-alertmanager")]


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    (tmp_path / "alertmanager.yml").write_text("route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n")
    port = free_port()
    line = [program, f"--config.file={tmp_path / 'alertmanager.yml'}", f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn"]  # fmt: skip
    with Running(line, tmp_path / "alertmanager.log") as process:
        process.until(lambda: _ready(port), "Alertmanager is ready", 20)
        yield f"http://127.0.0.1:{port}"


def _ready(port: int) -> bool:
    try:
        return ask(f"http://127.0.0.1:{port}/-/ready").status == 200
    except OSError:
        return False


def active(url: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = ask(f"{url}/api/v2/alerts?active=true").json
    return found


async def test_an_alert_begins_stays_one_when_it_is_told_twice_and_ends(alertmanager: str) -> None:
    async with aiohttp.ClientSession() as session:
        receivers = {"oncall": ReceiverSpec(alertmanager=alertmanager)}
        hand = NotifyHand(session, "chat", receivers, lambda place: place, lambda: datetime.now(UTC))
        errand = Notify("oncall")
        assert await hand.observe(errand, "chat/P0/1", "") == ""
        await hand.apply(errand, "chat/P0/1")
        await hand.apply(errand, "chat/P0/1")
        (alert,) = active(alertmanager)
        assert alert["labels"] == {
            "alertname": "ControlplaneDegradation", "service": "chat", "receiver": "oncall", "severity": "critical",
            "row": "P0",
        }  # fmt: skip
        assert await hand.observe(errand, "chat/P0/1", "")
        await hand.revert(errand, "chat/P0/1", {})
        until(lambda: not active(alertmanager), 10, "the alert is over")
        assert await hand.observe(errand, "chat/P0/1", "") == ""


async def test_one_row_that_ends_leaves_the_alert_of_another_and_every_page_is_an_alert(alertmanager: str) -> None:
    async with aiohttp.ClientSession() as session:
        receivers = {"shared": ReceiverSpec(alertmanager=alertmanager)}
        hand = NotifyHand(session, "chat", receivers, lambda place: place, lambda: datetime.now(UTC))
        errand = Notify("shared")
        for key in ("chat/P1/1/0", "chat/P0/1/0"):
            await hand.apply(errand, key)
        await hand.revert(errand, "chat/P1/1/0", {})
        until(lambda: len(active(alertmanager)) == 1, 10, "the alert of P1 is over")
        assert await hand.observe(errand, "chat/P1/1/0", "") == ""
        assert await hand.observe(errand, "chat/P0/1/0", "")
        for text in ("P0 waits for a person", "P0 could not be put in force"):
            await hand.page(text)
        assert len(active(alertmanager)) == 3
