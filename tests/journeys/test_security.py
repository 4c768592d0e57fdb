"""A real control plane and who may come in: tokens, TLS, a log that verifies, and no secret in sight."""

import sqlite3
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests.journeys.test_bad_starts import static_page
from tests.support.processes import Plane, controlplane

pytestmark = pytest.mark.journey

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("security") / "run"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def plane(run: Path) -> Iterator[Plane]:
    with Plane(static_page(run)) as plane:
        yield plane


def cli(plane: Plane, *line: str) -> str:
    done = controlplane(*line, "--state-dir", plane.state)
    assert done.status == 0, done
    return done.out.strip()


def create(plane: Plane, name: str, role: str) -> tuple[str, str]:
    """Hand out a token; return its text and its id."""
    text = cli(plane, "token", "create", name, "--role", role)
    assert text.startswith("cpt_")
    return text, text[4:16]


def test_nothing_is_read_or_done_without_a_token(plane: Plane) -> None:
    for path in ("/api/v1/standing", "/", "/openapi.json", "/fragment", "/api/v1/nothing"):
        assert plane.ask(path, token="").status == 401, path
    assert plane.ask("/api/v1/heal", "POST", {}, token="").status == 401
    for path in ("/healthz", "/metrics", "/login", "/static/console.css"):
        assert plane.ask(path, token="").status == 200, path


def test_a_token_is_handed_out_used_from_elsewhere_listed_and_taken_back(plane: Plane, tmp_path: Path) -> None:
    text, token_id = create(plane, "deploy bot", "operator")
    (tmp_path / "token").write_text(text + "\n")
    there = ("--url", plane.url, "--token-file", tmp_path / "token")
    assert controlplane(*there, "status", "--json").status == 0
    assert controlplane(*there, "halt", "--why", "a test").status == 0
    assert controlplane(*there, "resume").status == 0
    refused = controlplane(*there, "token", "list")
    assert refused.status == 5
    assert "an admin" in refused.err
    listed = cli(plane, "token", "list")
    assert token_id in listed
    assert text not in listed
    cli(plane, "token", "revoke", token_id)
    assert controlplane(*there, "status").status == 5
    assert plane.ask("/api/v1/standing", token=text).status == 401


def test_the_state_directorys_token_is_not_sent_to_another_address(plane: Plane) -> None:
    done = controlplane("--url", "http://127.0.0.1:1", "status", "--state-dir", plane.state)
    assert done.status == 2
    assert "no token for http://127.0.0.1:1" in done.err


def test_the_log_says_who_and_verifies_with_and_without_a_server(run: Path) -> None:
    beside = run.parent / "audited"
    beside.mkdir()
    with Plane(static_page(beside)) as plane:
        cli(plane, "halt", "--why", "the racks move")
        cli(plane, "resume")
        rows = cli(plane, "audit", "list")
        assert "the racks move" in rows
        assert "done 200" in rows
        said = cli(plane, "audit", "verify")
        assert "4 rows, the chain holds" in said
        head = said.rpartition("head ")[2]
        state = plane.state
    assert controlplane("audit", "verify", "--state-dir", state, "--head", head).status == 0
    with closing(sqlite3.connect(state / "controlplane.db")) as connection:
        connection.execute("DROP TRIGGER audit_no_update")
        connection.execute("UPDATE audit SET why = 'nothing' WHERE number = 1")
        connection.commit()
    done = controlplane("audit", "verify", "--state-dir", state)
    assert done.status == 1
    assert "broken at row 1: row 1 was changed" in done.err


def test_no_secret_is_in_the_log_or_the_database_after_all_that(plane: Plane) -> None:
    secrets = {plane.token: "the file's token"}
    operator, _ = create(plane, "ann", "operator")
    secrets[operator] = "a stored token"
    address = urlsplit(plane.url)
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        for token in ("a-wrong-secret-token", operator):
            connection.request("POST", "/login", urlencode({"token": token}), FORM)
            answer = connection.getresponse()
            answer.read()
        cookie = (answer.getheader("set-cookie") or "").partition("=")[2].partition(";")[0]
        assert len(cookie) == 43
        connection.request("GET", "/", headers={"cookie": f"controlplane={cookie}"})
        assert connection.getresponse().read().startswith(b"<!DOCTYPE html>")
    assert plane.ask("/api/v1/standing?token=a-secret-in-a-query", token="a-wrong-bearer-token").status == 401
    secrets |= {
        "a-wrong-secret-token": "a wrong login", "a-wrong-bearer-token": "a wrong bearer", cookie: "a session",
        "a-secret-in-a-query": "a query",
    }  # fmt: skip
    files = [path for path in plane.state.rglob("*") if path.is_file() and path.name != "token"]
    assert any(path.name == "controlplane.db" for path in files)
    everything = plane.said.encode() + b"".join(path.read_bytes() for path in files)
    assert b"serving" in everything
    assert [what for secret, what in secrets.items() if secret.encode() in everything] == []


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's certificate, and a client's by an authority of its own."""
    folder = tmp_path_factory.mktemp("papers")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    new = ("openssl", "req", "-x509", *key, "-days", "2")
    openssl(folder, *new, "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=plane.example",
            "-addext", "subjectAltName=DNS:plane.example")  # fmt: skip
    openssl(folder, *new, "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl(folder, "openssl", "req", *key,
            "-keyout", "client-key.pem", "-out", "client.csr", "-subj", "/CN=client")  # fmt: skip
    openssl(folder, "openssl", "x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-out", "client-cert.pem", "-days", "2")  # fmt: skip
    both = (folder / "client-cert.pem").read_text() + (folder / "client-key.pem").read_text()
    (folder / "client.pem").write_text(both)
    return folder


def openssl(folder: Path, *line: str) -> None:
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_over_tls_the_command_line_on_this_machine_goes_on_working_and_pins_the_server(
    papers: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    tls = ("--tls-cert", papers / "cert.pem", "--tls-key", papers / "key.pem")
    with Plane(static_page(run), more=tls) as plane:
        assert plane.url.startswith("https://127.0.0.1:")
        cli(plane, "status", "--json")
        cli(plane, "heal", str(run / "controlplane.yaml"))
        with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
            urllib.request.urlopen(plane.url + "/healthz", timeout=10)  # noqa: S310 - https, as the line before says
        known = ssl.create_default_context(cafile=papers / "cert.pem")
        known.check_hostname = False
        address = urlsplit(plane.url)
        with closing(HTTPSConnection(address.hostname or "", address.port, timeout=10, context=known)) as connection:
            connection.request("POST", "/login", urlencode({"token": plane.token}), FORM)
            answer = connection.getresponse()
            cookie = answer.getheader("set-cookie") or ""
            assert cookie.startswith("__Host-controlplane=")
            assert "Secure" in cookie
            assert answer.getheader("strict-transport-security")
        (plane.state / "server.pem").write_text((papers / "ca.pem").read_text())
        wrong = controlplane("status", "--state-dir", plane.state)
        assert wrong.status == 4
        assert "certificate" in wrong.err
        assert "--ca-file" in wrong.err


def test_a_certificate_that_is_renewed_in_its_files_is_taken_over_while_it_serves(papers: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text((papers / "cert.pem").read_text())
    key.write_text((papers / "key.pem").read_text())
    with Plane(static_page(run), more=("--tls-cert", cert, "--tls-key", key)) as plane:
        address = urlsplit(plane.url)

        def shown() -> str:
            return ssl.get_server_certificate((address.hostname or "", address.port or 0))

        before = shown()
        cert.write_text((papers / "ca.pem").read_text())
        plane.until(lambda: "certificate not renewed" in plane.said, "the other half is missing", 30.0)
        assert shown() == before
        key.write_text((papers / "ca-key.pem").read_text())
        plane.until(lambda: shown() != before, "the new one is shown", 30.0)
        assert shown().split() == cert.read_text().split()
        cli(plane, "status", "--json")


def test_with_an_authority_for_clients_only_they_come_in(papers: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    tls = ("--tls-cert", papers / "cert.pem", "--tls-key", papers / "key.pem", "--tls-client-ca", papers / "ca.pem")
    with Plane(static_page(run), more=tls) as plane:
        assert controlplane("status", "--state-dir", plane.state).status == 4
        mine = {"CONTROLPLANE_CLIENT_CERT": str(papers / "client.pem")}
        assert controlplane("status", "--json", "--state-dir", plane.state, env=mine).status == 0


def test_a_provider_is_offered_at_the_login_and_its_secret_is_nowhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret").write_text("the-secret-of-the-client\n")
    flags = ("--oidc-issuer", "http://127.0.0.1:1", "--oidc-client-id", "cp", "--oidc-client-secret-file",
             tmp_path / "secret", "--public-url", "https://console.example")  # fmt: skip
    with Plane(static_page(run), more=flags) as plane:
        assert 'href="/oidc/start' in plane.ask("/login", token="").text
        assert plane.ask("/oidc/start", token="").status == 503
        address = urlsplit(plane.url)
        with closing(HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
            connection.request("POST", "/login", urlencode({"token": plane.token}), FORM)
            cookie = connection.getresponse().getheader("set-cookie") or ""
        assert cookie.startswith("__Host-controlplane="), "browsers come by https, through a proxy"
        assert "the-secret-of-the-client" not in plane.said
