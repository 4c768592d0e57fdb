"""A real Alertmanager posts to a real control plane: what fires there fires by our books, and ends when it ends."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.processes import Running, ask, command, free_port, listens, until

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus-alertmanager")]

PAGE = """
service: chat
alertmanager: "http://127.0.0.1:{alertmanager}"
fleet: {{ pools: {{ primary: {{ endpoints: {{ static: ["http://127.0.0.1:{nobody}"] }} }} }} }}
"""
CONFIG = """
route: {{ receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h }}
receivers:
  - name: hook
    webhook_configs:
      - url: "http://127.0.0.1:{port}/hooks/alertmanager"
        send_resolved: true
        http_config: {{ authorization: {{ credentials_file: "{token}" }} }}
"""


@dataclass
class World:
    """Both programs on free ports."""

    here: Path
    port: int
    alertmanager_port: int
    alertmanager: Running

    def serve(self) -> Running:
        plane = Running(command("serve", self.here / "page.yaml", "--port", str(self.port)), self.here / "serve.log")
        plane.until(lambda: listens(self.port), "it listens")
        return plane

    def tell(self, name: str, *, over: bool = False, ago_s: float = 0.0, **labels: str) -> None:
        """Tell Alertmanager that an alert began, or ended, so long ago."""
        now = datetime.now(UTC)
        one: dict[str, Any] = {
            "labels": {"alertname": name, **labels},
            "startsAt": (now - timedelta(seconds=1 + 2 * ago_s)).isoformat(),
        }
        ended = now - timedelta(seconds=ago_s)
        one["endsAt"] = (ended if over else now + timedelta(hours=1)).isoformat()
        answer = ask(f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts", "POST", [one])
        assert answer.status == 200

    def alerts(self) -> list[dict[str, Any]]:
        token = (self.here / "state" / "token").read_text().strip()
        answer = ask(f"http://127.0.0.1:{self.port}/api/v1/alerts", headers={"authorization": f"Bearer {token}"})
        found: list[dict[str, Any]] = answer.json["alerts"]
        return found

    def firing(self) -> list[str]:
        try:
            found = self.alerts()
        except OSError:
            return ["nobody answers"]
        return sorted(alert["name"] for alert in found)

    def get(self, path: str) -> Any:
        token = (self.here / "state" / "token").read_text().strip()
        return ask(f"http://127.0.0.1:{self.port}{path}", headers={"authorization": f"Bearer {token}"}).json

    def incidents(self) -> list[tuple[str, list[str]]]:
        """Return every incident: its state, and what belongs to it."""
        found = []
        try:
            for item in self.get("/api/v1/incidents"):
                key = quote(item["incident"]["id"], safe="")
                one = self.get(f"/api/v1/incidents/{key}")
                found.append((one["incident"]["state"], sorted(member["name"] for member in one["members"])))
        except OSError:
            return [("nobody answers", [])]
        return found

    def listed(self) -> set[str]:
        return {a["fingerprint"] for a in ask(f"http://127.0.0.1:{self.alertmanager_port}/api/v2/alerts").json}

    def metric(self, name: str) -> float:
        lines = ask(f"http://127.0.0.1:{self.port}/metrics").text.splitlines()
        return float(next(line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    program = shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("Alertmanager is not installed: apt-get install prometheus-alertmanager")
    port, alertmanager_port = free_port(), free_port()
    (tmp_path / "state").mkdir()
    token = tmp_path / "state" / "webhook-token"
    token.write_text("the-token-of-the-webhook\n")
    (tmp_path / "page.yaml").write_text(PAGE.format(alertmanager=alertmanager_port, nobody=free_port()))
    (tmp_path / "am.yml").write_text(CONFIG.format(port=port, token=token))
    line = [
        program, f"--config.file={tmp_path / 'am.yml'}", f"--storage.path={tmp_path / 'am'}",
        f"--web.listen-address=127.0.0.1:{alertmanager_port}", "--cluster.listen-address=",
    ]  # fmt: skip
    with Running(line, tmp_path / "am.log") as alertmanager:
        alertmanager.until(lambda: listens(alertmanager_port), "Alertmanager listens")
        yield World(tmp_path, port, alertmanager_port, alertmanager)


def test_what_alertmanager_posts_is_in_the_books_under_the_name_it_has_there(world: World) -> None:
    with world.serve():
        world.tell("Slow", service="chat")
        received = "controlplane_alerts_received_total"
        until(lambda: world.firing() == ["Slow"] and world.metric(received) >= 1, what="the webhook is taken")
        (found,) = world.alerts()
        assert {found["fingerprint"]} == world.listed()
        world.tell("Slow", over=True, service="chat")
        until(lambda: world.firing() == [], what="its end is taken")


def test_what_began_while_we_were_dead_is_known_after_the_start_and_what_fired_before_is_remembered(
    world: World,
) -> None:
    plane = world.serve()
    world.tell("Before")
    until(lambda: world.firing() == ["Before"], what="the first one is taken")
    plane.kill()
    for i in range(20):
        world.tell("Meanwhile", id=str(i))
    with world.serve():
        until(lambda: world.firing() == ["Before", *["Meanwhile"] * 20], what="all of them are in the books")


def test_what_it_posts_is_one_incident_across_a_kill_and_is_over_when_all_of_it_is(world: World) -> None:
    plane = world.serve()
    world.tell("Slow", ago_s=130, service="chat", severity="critical")
    until(lambda: world.incidents() == [("open", ["Slow"])], what="an incident is opened")
    plane.kill()
    world.tell("Failing", ago_s=130, service="chat", severity="critical")
    with world.serve():
        until(lambda: world.incidents() == [("open", ["Failing", "Slow"])], what="the second one joins it")
        for name in ("Slow", "Failing"):
            world.tell(name, over=True, ago_s=125, service="chat", severity="critical")
        until(lambda: world.incidents() == [("resolved", ["Failing", "Slow"])], what="the incident is over")
