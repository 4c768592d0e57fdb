"""The driver of alerts against a real Alertmanager: silences tag, end by themselves and can be lifted."""

import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from controlplane.chaos.alertmanager import Alertmanager
from controlplane.chaos.contract import Silence
from controlplane.errors import UnreachableError
from tests.support.processes import Running, ask, free_port, listens, until

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus-alertmanager")]

CONFIG = "route: { receiver: nobody }\nreceivers: [ { name: nobody } ]\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    here = tmp_path_factory.mktemp("alertmanager")
    (here / "am.yml").write_text(CONFIG, encoding="utf-8")
    port = free_port()
    line = [
        program, f"--config.file={here / 'am.yml'}", f"--storage.path={here}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with Running(line, here / "am.log") as server:
        server.until(lambda: listens(port), "Alertmanager listens")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
async def room(url: str) -> AsyncIterator[Alertmanager]:
    async with aiohttp.ClientSession() as session:
        yield Alertmanager(session, url)


def fire(url: str, name: str, service: str = "chat") -> None:
    body = [{"labels": {"alertname": name, "service": service}, "startsAt": datetime.now(UTC).isoformat()}]
    assert ask(f"{url}/api/v2/alerts", "POST", body).status == 200


def alert(url: str, name: str, service: str = "chat") -> dict[str, Any]:
    found = [
        a for a in ask(f"{url}/api/v2/alerts").json if a["labels"] == {"alertname": name, "service": service}
    ]  # fmt: skip
    (only,) = found
    return dict(only)


def soon(seconds: float = 60) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_what_fires_is_told_with_its_time_and_its_service(room: Alertmanager, url: str) -> None:
    before = datetime.now(UTC)
    fire(url, "Told")
    found = [a for a in await room.firing() if a.name == "Told"]
    assert len(found) == 1
    assert found[0].service == "chat"
    assert found[0].since >= before - timedelta(seconds=1)


async def test_a_silence_tags_the_named_alerts_of_the_service_and_no_other(room: Alertmanager, url: str) -> None:
    for name, service in (("Expected", "chat"), ("Expected.Not", "chat"), ("Other", "chat"), ("Expected", "other")):
        fire(url, name, service)
    ends = soon()
    silence = await room.silence(Silence(("Expected", "Absent"), "chat", ends, "drill abc"))
    assert alert(url, "Expected")["status"]["silencedBy"] == [silence]
    for name, service in (("Expected.Not", "chat"), ("Other", "chat"), ("Expected", "other")):
        assert alert(url, name, service)["status"]["state"] != "suppressed"
    kept = ask(f"{url}/api/v2/silence/{silence}").json
    assert kept["comment"] == "drill abc"
    assert abs(datetime.fromisoformat(kept["endsAt"]) - ends) < timedelta(seconds=1)
    assert any(a.name == "Expected" for a in await room.firing())
    longer = await room.silence(Silence(("Expected",), "chat", soon(120), "drill abc", silence))
    await room.lift(longer)
    await room.lift(longer)
    await room.lift(silence)
    await room.lift("0d5b1a3e-8f6c-4a53-9c0e-000000000000")  # As one that a restart has made it forget.
    assert alert(url, "Expected")["status"]["silencedBy"] == []


async def test_a_silence_nobody_lifts_ends_by_itself(room: Alertmanager, url: str) -> None:
    fire(url, "Forgotten")
    silence = await room.silence(Silence(("Forgotten",), "chat", soon(8), "drill abc"))
    assert alert(url, "Forgotten")["status"]["silencedBy"] == [silence]
    until(lambda: ask(f"{url}/api/v2/silence/{silence}").json["status"]["state"] == "expired", 40, "it has expired")
    until(lambda: alert(url, "Forgotten")["status"]["silencedBy"] == [], 40, "it is silenced no more")


async def test_nobody_there_is_said_with_the_way_out() -> None:
    async with aiohttp.ClientSession() as session:
        room = Alertmanager(session, f"http://127.0.0.1:{free_port()}")
        with pytest.raises(UnreachableError) as error:
            await room.firing()
        assert "`alertmanager:`" in error.value.fix
