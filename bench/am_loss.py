"""10,000 alerts through a real Alertmanager, while the control plane they are posted to is killed again and again.

`controlplane serve` gets SIGKILL two seconds after each time it answers, and is started again on the same state. At the
end every alert must be in its books, and each time the alert that the row waits for came up the action must have been
begun once: one receipt an episode, and one idempotency key at the receiver.
"""

import json
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

from bench.classic import ALERTMANAGER
from bench.figures import Figure
from bench.fleet import wait_until
from bench.hooked import ALERT, PATH, Outside, Plane, outside
from bench.intake import alertmanager

ALERTS = 10_000
BATCH = 50
OVER_S = 60.0
"""How long the alerts take to be posted to Alertmanager."""
EPISODES = 5
LIFE_S = 2.0
"""How long the control plane lives from its first answer on."""
SETTLED_WITHIN_S = 240.0
COMMAND = "make bench ONLY=am-loss"
_CONFIG = """
route: {{ receiver: hook, group_by: [alertname, cluster], group_wait: 0s, group_interval: 1s, repeat_interval: 4h }}
receivers:
  - name: hook
    webhook_configs:
      - url: "http://127.0.0.1:{port}{path}"
        send_resolved: true
        http_config: {{ authorization: {{ credentials_file: "{token}" }} }}
"""


def run() -> list[Figure]:
    """Send them all, and count."""
    if not shutil.which(ALERTMANAGER):
        raise SystemExit("prometheus-alertmanager is not installed")
    with tempfile.TemporaryDirectory(prefix="bench-") as name, outside() as out:
        found = storm(Path(name), out, ALERTS, EPISODES, OVER_S)
    lost, twice, kills = found["lost"], found["twice"], int(found["kills"])
    return [
        Figure("alerts lost", lost, f"of {ALERTS}", ALERTS, COMMAND, "0", lost == 0),
        Figure("actions begun twice", twice, f"of {EPISODES}", EPISODES, COMMAND, "0", twice == 0),
        Figure("  messages told again under the same key", found["retold"], "messages", EPISODES, COMMAND),
        Figure("  the control plane was killed", kills, "times", kills, COMMAND),
        Figure("  until every alert was in the books, from the last one posted", found["settled_s"], "s", 1, COMMAND),
    ]


def storm(folder: Path, out: Outside, alerts: int, episodes: int, over_s: float) -> dict[str, float]:
    """Run it; return what was lost, begun twice and told again, how often it was killed, and how long it took."""
    ours = Plane(folder / "plane", out)
    config = _CONFIG.format(port=ours.port, path=PATH, token=ours.token_file)
    with alertmanager(folder / "am", config) as port:
        ours = Plane(folder / "plane", out, f"http://127.0.0.1:{port}", port=ours.port)
        with killed_again_and_again(ours) as kills:
            posting = threading.Thread(target=_post_all, args=(port, alerts, over_s), daemon=True)
            posting.start()
            for episode in range(episodes):
                _episode(port, ours, episode)
            posting.join()
        ours.start()
        try:
            began = time.monotonic()
            wait_until(lambda: _stored(ours) >= alerts, "every alert is in the books", within_s=SETTLED_WITHIN_S)
            settled_s = round(time.monotonic() - began, 1)
        except SystemExit:
            settled_s = SETTLED_WITHIN_S
        finally:
            ours.stop()
    keys = out.begun()
    receipts = len(_receipts(ours))
    return {
        "lost": alerts - _stored(ours),
        "twice": max(receipts, len(set(keys))) - episodes,
        "retold": len(keys) - len(set(keys)),
        "kills": len(kills),
        "settled_s": settled_s,
    }


@contextmanager
def killed_again_and_again(ours: Plane) -> Iterator[list[float]]:
    """Start a control plane and kill it, over and over, until left; give the times of its deaths."""
    stop, kills = threading.Event(), list[float]()

    def work() -> None:
        while not stop.is_set():
            ours.start()
            time.sleep(LIFE_S)
            ours.kill()
            kills.append(time.monotonic())

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield kills
    finally:
        stop.set()
        worker.join()


def _episode(port: int, ours: Plane, episode: int) -> None:
    """Have the alert of the row fire until the row is engaged, and end it until it is not."""
    labels = {"alertname": ALERT, "id": str(episode)}
    began = datetime.now(UTC)

    def done(state: str, ends: timedelta) -> bool:
        # As Prometheus does, it is told again and again.
        _tell(
            port, [{"labels": labels, "startsAt": began.isoformat(), "endsAt": (datetime.now(UTC) + ends).isoformat()}]
        )
        time.sleep(0.5)
        return _receipts(ours)[episode : episode + 1] == [state]

    wait_until(lambda: done("verified", timedelta(hours=1)), "the row is engaged", within_s=SETTLED_WITHIN_S)
    wait_until(lambda: done("reverted", timedelta(0)), "the row is given back", within_s=SETTLED_WITHIN_S)


def _post_all(port: int, alerts: int, over_s: float) -> None:
    began = time.monotonic()
    ends = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    for first in range(0, alerts, BATCH):
        _tell(
            port,
            [{"labels": {"alertname": "Storm", "cluster": f"c{i % 50}", "id": str(i)}, "endsAt": ends}
             for i in range(first, min(first + BATCH, alerts))],
        )  # fmt: skip
        time.sleep(max(0.0, began + over_s * first / alerts - time.monotonic()))


def _tell(port: int, alerts: list[dict[str, object]]) -> None:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", "/api/v2/alerts", json.dumps(alerts), {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"Alertmanager answers {answer.status}: {answer.read()[:200]!r}")


def _receipts(ours: Plane) -> list[str]:
    return [str(state) for (state,) in _ask(ours, "SELECT state FROM receipts WHERE level = 'P1' ORDER BY episode")]


def _stored(ours: Plane) -> int:
    rows = _ask(ours, "SELECT count(*) FROM alerts WHERE name = 'Storm' AND status = 'firing'")
    return int(str(rows[0][0])) if rows else 0


def _ask(ours: Plane, query: str) -> list[tuple[object, ...]]:
    try:
        with closing(sqlite3.connect(f"file:{ours.database}?mode=ro", uri=True, timeout=10)) as database:
            return list(database.execute(query))
    except sqlite3.OperationalError:  # It is not there yet.
        return []
