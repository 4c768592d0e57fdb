"""A fleet's live pages, over a real socket."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from controlplane.cli import app
from tests.support import engine_pages

PAGES = Path(__file__).parents[2] / "pages"


class Handler(BaseHTTPRequestHandler):
    page = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def page(tmp_path: Path, *urls: str, engine: str = "auto") -> str:
    path = tmp_path / "controlplane.yaml"
    listed = ", ".join(f'"{url}"' for url in urls)
    path.write_text(
        f"service: s\nfleet: {{ engine: {engine}, pools: {{ primary: {{ endpoints: {{ static: [{listed}] }} }} }} }}\n"
    )
    return str(path)


def test_a_fleet_that_keeps_the_contract_is_fine(url: str, tmp_path: Path) -> None:
    Handler.page = (PAGES / "vllm-0.32.0-cpu.prom").read_bytes()
    done = CliRunner().invoke(app, ["check", page(tmp_path, url), "--live"])
    assert done.exit_code == 0, done.output
    assert "1 pages, 0 with problems" in done.stdout


def test_what_the_policy_relies_on_and_nobody_tells_is_noted(url: str, tmp_path: Path) -> None:
    Handler.page = engine_pages.LLAMACPP
    done = CliRunner().invoke(app, ["check", page(tmp_path, url), "--live"])
    assert done.exit_code == 0
    assert "threshold `latency_p99` looks at latency_p99" in done.output
    assert "kv_cache_utilization" in done.output


def test_an_endpoint_that_does_not_answer_is_a_problem(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", page(tmp_path, "http://127.0.0.1:1"), "--live"])
    assert done.exit_code == 1
    assert "cannot be fetched" in done.output


def test_a_fleet_without_endpoints_is_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "controlplane.yaml"
    path.write_text("service: s\nfleet: { pools: { primary: { endpoints: { file: none.json } } } }\n")
    done = CliRunner().invoke(app, ["check", str(path), "--live"])
    assert done.exit_code != 0
