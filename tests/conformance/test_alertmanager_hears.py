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


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    here: Path = tmp_path_factory.mktemp("alertmanager")
    (here / "alertmanager.yml").write_text("route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n")
    port = free_port()
    line = [program, f"--config.file={here / 'alertmanager.yml'}", f"--storage.path={here / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn"]  # fmt: skip
    with Running(line, here / "alertmanager.log") as process:
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
        assert await hand.observe(errand) == ""
        await hand.apply(errand, "chat/P0/1")
        await hand.apply(errand, "chat/P0/1")
        (alert,) = active(alertmanager)
        assert alert["labels"] == {
            "alertname": "ControlplaneDegradation", "service": "chat", "receiver": "oncall", "severity": "critical",
        }  # fmt: skip
        assert await hand.observe(errand)
        await hand.revert(errand, "chat/P0/1", {})
        until(lambda: not active(alertmanager), 10, "the alert is over")
        assert await hand.observe(errand) == ""
