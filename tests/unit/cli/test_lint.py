"""`controlplane lint` and `render --check` as a person types them."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl

import pytest
from typer.testing import CliRunner, Result

from controlplane.cli import app
from controlplane.errors import ControlplaneError, UnreachableError, UsageError
from controlplane.runtime.linting import PrometheusApi

PAGE = """
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://127.0.0.1:1"] } }
    standby: { endpoints: { static: ["http://127.0.0.1:2"] } }
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "controlplane.yaml"
    path.write_text(PAGE, encoding="utf-8")
    assert run("render", str(path)).exit_code == 0
    return path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def rules(page: Path) -> Path:
    return next((page.parent / "alerts").rglob("*.rules.yml"))


def test_fresh_files_have_no_errors_and_the_weakest_stand_first(page: Path) -> None:
    done = run("lint", str(page))
    assert done.exit_code == 0, done.output
    for words in ("runbooks/P0", "no drill has ever proved it", "more files, none with an error", "all"):
        assert words in done.output, words


def test_every_file_is_named_in_json(page: Path) -> None:
    done = run("lint", str(page), "--json")
    assert done.exit_code == 0, done.output
    for path in ("runbooks/P0", "alerts/chat.rules.yml", "dashboards/"):
        assert path in done.output, path


def test_a_mistake_fails_and_says_where_what_and_how_to_mend_it(page: Path) -> None:
    edit(rules(page), "controlplane_endpoint_up", "controlplane_endpoint_ip")
    done = run("lint", str(page))
    assert done.exit_code == 1
    assert "EndpointDown" in done.output
    assert "the control plane exposes no `controlplane_endpoint_ip`" in done.output
    assert "did it mean controlplane_endpoint_up?" in done.output


def test_json_has_scores_and_findings(page: Path) -> None:
    edit(rules(page), "controlplane_endpoint_up", "controlplane_endpoint_ip")
    done = run("lint", str(page), "--json")
    found = json.loads(done.stdout)
    assert found["live"] is False
    assert found["files"]["alerts/chat.rules.yml"]["score"] < 100
    assert [f["rule"] for f in found["findings"] if f["severity"] == "error"] == ["unknown-series"]
    assert set(found["total"]) == {"checks", "errors", "warnings", "score"}


def test_a_score_decides_where_one_is_named(page: Path) -> None:
    assert run("lint", str(page), "--min-score", "100").exit_code == 1
    edit(rules(page), "controlplane_endpoint_up", "controlplane_endpoint_ip")
    assert run("lint", str(page), "--min-score", "50").exit_code == 0
    assert run("lint", str(page), "--min-score", "101").exit_code == 2


def test_nothing_rendered_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "controlplane.yaml"
    path.write_text(PAGE, encoding="utf-8")
    done = run("lint", str(path))
    assert isinstance(done.exception, UsageError)
    assert "render" in done.exception.fix


def test_a_broken_file_is_a_finding_and_no_traceback(page: Path) -> None:
    rules(page).write_text("groups: [", encoding="utf-8")
    done = run("lint", str(page))
    assert done.exit_code == 1
    assert "it cannot be read" in done.output


def test_a_span_that_is_none_is_wrong_usage(page: Path) -> None:
    assert isinstance(run("lint", str(page), "--since", "yesterday").exception, UsageError)


# -- the client --------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    status, body = 200, b""
    asked: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.asked.append(dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode())))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[PrometheusApi]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Handler.asked.clear()
        yield PrometheusApi(f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
        thread.join()


def test_a_result_and_a_refusal_are_both_replies(api: PrometheusApi) -> None:
    sample = {"metric": {"a": "b"}, "value": [1, "2"]}
    body = {"status": "success", "data": {"resultType": "vector", "result": [sample]}}
    Handler.status, Handler.body = 200, json.dumps(body).encode()
    assert api.ask("x").series == ({"a": "b"},)
    Handler.status, Handler.body = 400, b'{"status":"error","errorType":"bad_data","error":"parse error: why"}'
    assert "parse error: why" in api.ask("x(").refused


def test_every_query_is_asked_for_one_moment_of_its_own_clock(api: PrometheusApi) -> None:
    Handler.status, Handler.body = 200, _scalar("1767225600.25")
    assert api.names() == frozenset(), "what is there is read before the moment is taken"
    api.ask("x")
    Handler.body = _scalar("1767225700.25")
    api.ask("y")
    assert Handler.asked == [
        {"query": "time()"},
        {"query": "x", "time": "1767225600.250"},
        {"query": "y", "time": "1767225600.250"},
    ]


def _scalar(value: str) -> bytes:
    data = {"resultType": "scalar", "result": [float(value), value]}
    return json.dumps({"status": "success", "data": data}).encode()


def test_a_prometheus_that_cannot_tell_the_time_is_an_error(api: PrometheusApi) -> None:
    Handler.status, Handler.body = 422, b'{"status":"error","errorType":"execution","error":"why"}'
    with pytest.raises(UnreachableError) as refused:
        api.ask("x")
    assert "why" in refused.value.why


@pytest.mark.parametrize(("status", "body"), [(500, b"oops"), (404, b"<html>"), (503, b"")])
def test_what_is_no_prometheus_is_an_error_with_a_way_out(api: PrometheusApi, status: int, body: bytes) -> None:
    Handler.status, Handler.body = status, body
    with pytest.raises(UnreachableError, match="no Prometheus answers"):
        api.ask("x")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "file:///etc/passwd", "nonsense"])
def test_an_address_that_is_no_server_is_an_error_with_a_way_out(url: str) -> None:
    with pytest.raises(UnreachableError, match="no Prometheus answers"):
        PrometheusApi(url).names()


# -- render --check ----------------------------------------------------------------------------------------------------


def test_a_check_of_fresh_files_passes(page: Path) -> None:
    assert run("render", str(page), "--check").exit_code == 0


def test_a_check_says_which_files_differ_and_why(page: Path) -> None:
    edit(rules(page), "severity: critical", "severity: calm")
    edit(page, "service: chat", "service: chat\nthresholds: { latency_p99: { warn: 900ms } }")
    done = run("render", str(page), "--check")
    assert isinstance(done.exception, ControlplaneError)
    assert done.exception.exit_code == 1
    assert "edited by hand and the page changed" in done.output
    assert "dashboards/" in done.output
    assert "@@" not in done.output
    assert "--diff" in done.exception.fix
    lines = run("render", str(page), "--check", "--diff").output.splitlines()
    assert any(line.startswith("-") and "severity: calm" in line for line in lines)
    assert any(line.startswith("+") and "severity: critical" in line for line in lines)
    assert run("render", str(page)).exit_code == 0
    assert run("render", str(page), "--check").exit_code == 0
