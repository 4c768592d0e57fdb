"""Every query of every dashboard gives data from a real Prometheus that scrapes a real fleet through a real drill.

Nothing is left out. Two things are stand-ins, because this machine may have no GPU: dcgm-exporter's page
(`tests/support/gpu_exporter`), which Prometheus scrapes and the control plane's own GPU probe reads.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.dashboards import Query, filled, panels, queries
from tests.support.gpu_exporter import gpu_exporter
from tests.support.processes import Fleet, Load, Plane, Running, ask, command, free_port, reference_page, until
from tests.support.webhooks import alert, told, webhook

pytestmark = [pytest.mark.journey, pytest.mark.debian("prometheus"), pytest.mark.timeout(300)]

BY_NATURE_EMPTY: dict[str, str] = {}
"""Queries that may give nothing on a fleet that has been drilled, with the reason. There are none."""

ASKED_FOR_S = 30.0
"""A scrape that fails leaves its target without series for a while: what finds nothing now is asked again so long."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A drilled fleet, and the Prometheus that watched it."""

    url: str
    fleet: Fleet
    plane: Plane
    began: float
    """Unix seconds: the first scrape."""

    def asked(self, path: str, **parameters: str | float) -> list[dict[str, Any]]:
        answer = ask(f"{self.url}/api/v1/{path}?{urlencode(parameters)}")
        assert answer.status == 200, f"{parameters}: {answer.text}"
        found: list[dict[str, Any]] = answer.json["data"]["result"]
        return found

    def values(self) -> dict[str, str]:
        """Return what Grafana puts for the variables when everything is chosen.

        Scrapes are a second apart; rates look twenty back, so that one that failed does not leave them empty.
        """
        own = urlsplit(self.plane.url).netloc
        return {
            "service": "reference", "pool": ".+", "endpoint": ".+", "experiment": ".+", "gpu_pool": "primary",
            "instance": re.escape(own).replace("\\", "\\\\"), "console": self.plane.url,
            "__rate_interval": "20s", "__interval": "20s", "__range": f"{math.ceil(time.time() - self.began)}s",
        }  # fmt: skip

    def numbers(self, query: Query) -> list[float]:
        """Return every number that a query gives now, or has given since the first scrape."""
        expr = filled(query.expr, self.values())
        if query.instant:
            return [float(series["value"][1]) for series in self.asked("query", query=expr)]
        found = self.asked("query_range", query=expr, start=self.began, end=time.time(), step=1)
        return [float(value) for series in found for _, value in series["values"]]


def with_gpus(page: str, exporter: str) -> str:
    """Let the policy's GPU probe read an exporter."""
    assert "  - gpu:       { every: 2s }" in page
    return page.replace(
        "  - gpu:       { every: 2s }", f'  - gpu:       {{ page: "http://{exporter}/metrics", every: 1s }}'
    )


def configuration(fleet: Fleet, plane: Plane, exporter: str, here: Path) -> Path:
    page = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {"job_name": "fleet", "file_sd_configs": [{"files": [f"{fleet.run_dir}/sd/*.json"]}]},
            {"job_name": "controlplane", "static_configs": [{"targets": [urlsplit(plane.url).netloc]}]},
            {"job_name": "gpus",
             "static_configs": [{"targets": [exporter], "labels": {"pool": "primary", "endpoint": "primary-0"}}]},
        ],
    }  # fmt: skip
    path = here / "prometheus.yml"
    path.write_text(json.dumps(page), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus")
    here = tmp_path_factory.mktemp("dashboards")
    (here / "run").mkdir()
    with gpu_exporter(free_port()) as exporter:
        (here / "run" / "controlplane.yaml").write_text(with_gpus(reference_page(), exporter), encoding="utf-8")
        with Fleet(here / "run") as fleet, Plane(fleet.page) as plane, Load(fleet.gateway, here / "load.jsonl", 30):
            plane.until_ready()
            url = f"http://127.0.0.1:{free_port()}"
            config = configuration(fleet, plane, exporter, here)
            line = [program, f"--config.file={config}", f"--storage.tsdb.path={here / 'data'}",
                    f"--web.listen-address={urlsplit(url).netloc}", "--log.level=warn"]  # fmt: skip
            with Running(line, here / "prometheus.log") as process:
                process.until(lambda: _ready(url), "Prometheus is ready", 30)
                found = Watched(url, fleet, plane, time.time())
                every = len(fleet.endpoints) + 2
                scraped = "count(count_over_time(up[2m]) >= 5)"
                process.until(lambda: _one(found, scraped) == every, "five scrapes of each target", 60)
                watchdog(plane)
                drill(plane, here)
                watchdog(plane)
                plane.until_level("none", 60)
                ended = 'sum(controlplane_drills_total{outcome="passed"})'
                process.until(lambda: _one(found, ended) == 1, "the drill's end is scraped", 30)
                scored = "count(controlplane_drill_score_ratio) + count(controlplane_error_budget_left_ratio)"
                process.until(lambda: _one(found, scored) == 2, "the score and the budget are scraped", 30)
                yield found


def drill(plane: Plane, here: Path) -> None:
    """Kill both primary nodes, as the schedule would."""
    plane.until_open("node-kill")
    with Running(command("drill", "run", "node-kill", "--state-dir", plane.state), here / "drill.log") as run:
        assert run.process.wait(120) == 0, run.said


def watchdog(plane: Plane) -> None:
    """Tell the control plane of the watchdog, as Alertmanager would each minute."""
    token = (plane.state / "webhook-token").read_text(encoding="utf-8").strip()
    body = json.loads(webhook([told(alert("Watchdog"))]))
    answer = ask(f"{plane.url}/hooks/alertmanager", "POST", body, {"authorization": f"Bearer {token}"})
    assert answer.status == 200, answer


def _one(found: Watched, expr: str) -> float:
    series = found.asked("query", query=expr)
    return float(series[0]["value"][1]) if series else 0.0


def _ready(url: str) -> bool:
    try:
        return ask(f"{url}/-/ready").status == 200
    except OSError:
        return False


def dashboards(found: Watched) -> list[dict[str, Any]]:
    files = sorted((found.fleet.run_dir / "dashboards").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def without_a_number(found: Watched, asked: Sequence[Query]) -> list[Query]:
    """Return the queries that give nothing."""
    return [query for query in asked if all(map(math.isnan, found.numbers(query)))]


def test_every_query_of_every_panel_and_every_mark_gives_data(watched: Watched) -> None:
    every = [query for dashboard in dashboards(watched) for query in queries(dashboard)]
    empty = [query for query in every if query.where not in BY_NATURE_EMPTY]
    deadline = time.monotonic() + ASKED_FOR_S
    while (empty := without_a_number(watched, empty)) and time.monotonic() < deadline:
        time.sleep(0.5)
    told = "\n".join(f"{query.where}: {query.expr}" for query in empty)
    assert not empty, f"{len(empty)} of {len(every)} queries:\n{told}"
    assert len(every) > 150


def test_what_is_left_out_is_on_a_dashboard(watched: Watched) -> None:
    every = {query.where for dashboard in dashboards(watched) for query in queries(dashboard)}
    assert set(BY_NATURE_EMPTY) <= every


def choices(found: Watched, series: str, label: str) -> set[str]:
    """Return the values of a label that some series have now."""
    return {one["metric"].get(label, "") for one in found.asked("query", query=series)} - {""}


def test_every_variable_finds_something_to_choose(watched: Watched) -> None:
    for dashboard in dashboards(watched):
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                asked = filled(variable["definition"], watched.values())
                series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", asked).groups()  # type: ignore[union-attr]
                find = partial(choices, watched, series, label)
                until(find, ASKED_FOR_S, f"a choice for {variable['name']} of {dashboard['title']}")


def test_the_control_planes_own_address_leads_to_its_console(watched: Watched) -> None:
    own = partial(watched.asked, "query", query='controlplane_info{service="reference"}')
    (info,) = until(own, ASKED_FOR_S, "the control plane's own series")
    assert info["metric"]["console"] == watched.plane.url
    assert watched.plane.ask("/").status == 200


def test_the_drill_is_seen_where_people_look_for_it(watched: Watched) -> None:
    """Panels do not just have any data: the kill, the lever and the score are in them."""
    by_title = {
        (dashboard["title"], panel["title"]): panel for dashboard in dashboards(watched) for panel in panels(dashboard)
    }

    def most(dashboard: str, panel: str) -> float:
        asked = by_title[dashboard, panel]["targets"][0]
        query = Query(panel, asked["expr"], asked["instant"])
        return max(until(lambda: watched.numbers(query), ASKED_FOR_S, panel))

    assert most("Chaos drills", "Faults in force over time") == 1
    assert most("Chaos drills", "Score") == 1.0
    assert most("Degradation and incidents", "Level over time") == 3, "P0 was in force"
    assert most("Degradation and incidents", "Incidents and level") >= 1
    assert 0 < most("Degradation and incidents", "Share of the promise that was needed") < 1
