"""`controlplane dashboards push`: what is written into a Grafana, what is left alone, what is said when it cannot."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from controlplane.cli import app
from controlplane.errors import ControlplaneError, UnreachableError, UsageError
from controlplane.render.dashboards.delivery import holds, stamped
from tests.support.fake_grafana import EDITOR, VIEWER, Store, fake_grafana

PAGE = Path(__file__).resolve().parents[2] / "golden" / "policies" / "full.yaml"
UIDS = {
    "controlplane-fleet-overview", "controlplane-endpoint-detail", "controlplane-degradation", "controlplane-drills",
    "controlplane-itself",
}  # fmt: skip


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("GRAFANA_TOKEN", EDITOR)
    monkeypatch.delenv("GRAFANA_URL", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with fake_grafana() as store:
        yield store


def push(store: Store, *more: str) -> Result:
    return CliRunner().invoke(app, ["dashboards", "push", str(PAGE), "--grafana", store.url, *more])


def refused(store: Store, *more: str) -> ControlplaneError:
    done = push(store, *more)
    assert isinstance(done.exception, ControlplaneError), done.exception
    return done.exception


def said(done: Result) -> list[str]:
    assert done.exit_code == 0, done.exception
    return [line.split()[0] for line in done.output.splitlines()[:-1]]


def of(store: Store, uid: str = "controlplane-fleet-overview") -> dict[str, Any]:
    found: dict[str, Any] = store.dashboards[uid]["dashboard"]
    return found


def test_the_first_push_makes_the_folder_and_every_dashboard(grafana: Store) -> None:
    done = push(grafana)
    assert said(done) == ["new"] * 6
    assert done.output.splitlines()[-1] == "5 dashboards and their folder, 6 written"
    assert set(grafana.dashboards) == UIDS
    assert {kept["folder"] for kept in grafana.dashboards.values()} == {"controlplane"}
    assert grafana.folders["controlplane"]["title"] == "LLM resilience"
    assert all("full.yaml" in kept["message"] for kept in grafana.dashboards.values())
    assert f"{grafana.url}/d/controlplane-fleet-overview/x" in done.output


@pytest.mark.parametrize("newer", [False, True], ids=["as-it-was-sent", "with-defaults-of-a-newer-grafana"])
def test_the_second_push_writes_nothing(grafana: Store, newer: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    push(grafana)
    grafana.writes.clear()
    grafana.newer = newer
    done = push(grafana)
    assert said(done) == ["same"] * 6
    assert grafana.writes == []


def test_only_what_differs_is_written_and_its_version_goes_on(grafana: Store) -> None:
    push(grafana)
    grafana.writes.clear()
    of(grafana)["panels"][1]["title"] = "renamed by hand"
    done = push(grafana)
    assert sorted(said(done)) == ["changed", *["same"] * 5]
    assert grafana.writes == ["POST /api/dashboards/db"]
    assert of(grafana)["version"] == 2
    assert of(grafana)["panels"][1]["title"] != "renamed by hand"


def test_a_key_that_the_page_no_longer_gives_is_a_change_too(grafana: Store) -> None:
    """A stored dashboard with more keys than ours looks like one to which Grafana has added its defaults."""
    push(grafana)
    before = of(grafana)
    old = {key: value for key, value in before.items() if key not in ("id", "version")} | {"weekStart": "monday"}
    old["description"] = old["description"].rpartition(" [")[0]
    grafana.dashboards[before["uid"]]["dashboard"] = stamped(old) | {"id": before["id"], "version": 1}
    assert "changed" in said(push(grafana))
    assert "weekStart" not in of(grafana)


def test_a_dashboard_that_was_moved_comes_back(grafana: Store) -> None:
    push(grafana)
    grafana.dashboards["controlplane-drills"]["folder"] = ""
    assert sorted(said(push(grafana))) == ["moved", *["same"] * 5]
    assert grafana.dashboards["controlplane-drills"]["folder"] == "controlplane"


def test_a_dry_run_says_the_same_and_writes_nothing(grafana: Store) -> None:
    done = push(grafana, "--dry-run")
    assert said(done) == ["new"] * 6
    assert done.output.splitlines()[-1] == "5 dashboards and their folder, 6 to be written"
    assert grafana.writes == []
    assert (grafana.folders, grafana.dashboards) == ({}, {})


def test_a_folder_that_is_there_keeps_its_title_and_another_can_be_chosen(grafana: Store) -> None:
    grafana.folders["sre"] = {"id": 7, "uid": "sre", "title": "SRE", "version": 3, "url": "/dashboards/f/sre/sre"}
    done = push(grafana, "--folder", "sre", "--folder-title", "Another")
    assert said(done) == ["same", *["new"] * 5]
    assert grafana.folders["sre"]["title"] == "SRE"
    assert {kept["folder"] for kept in grafana.dashboards.values()} == {"sre"}


def test_a_grafana_under_a_path_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", EDITOR)
    with fake_grafana("/grafana") as store:
        assert said(push(store)) == ["new"] * 6


def test_the_token_may_stand_in_a_file_and_the_address_in_the_environment(
    grafana: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GRAFANA_TOKEN")
    monkeypatch.setenv("GRAFANA_URL", grafana.url)
    file = tmp_path / "token"
    file.write_text(f"{EDITOR}\n", encoding="utf-8")
    done = CliRunner().invoke(app, ["dashboards", "push", str(PAGE), "--token-file", str(file)])
    assert said(done) == ["new"] * 6
    assert EDITOR not in done.output


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_an_unknown_token_is_told_from_one_that_may_not(grafana: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_old")
    unknown = refused(grafana)
    assert "does not know this token" in unknown.what
    assert "glsa_old" not in unknown.what + unknown.why + unknown.fix
    monkeypatch.setenv("GRAFANA_TOKEN", VIEWER)
    barred = refused(grafana)
    assert "may not" in barred.what
    assert "folders:create" in barred.why
    assert "Editor" in barred.fix


def test_somebody_who_is_quicker_is_not_run_over(grafana: Store) -> None:
    push(grafana)
    of(grafana)["panels"][1]["title"] = "renamed by hand"

    def quicker() -> None:
        of(grafana)["version"] += 1

    grafana.before_save = quicker
    error = refused(grafana)
    assert "somebody changed" in error.what
    assert "push again" in error.fix
    assert of(grafana)["panels"][1]["title"] == "renamed by hand"
    assert "changed" in said(push(grafana))


def test_a_dashboard_that_grafana_keeps_from_a_file_is_not_fought_over(grafana: Store) -> None:
    push(grafana)
    of(grafana)["title"] = "older"
    grafana.dashboards["controlplane-fleet-overview"]["provisioned"] = True
    assert "from a file of its own" in refused(grafana).what


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ((500, {"message": "database is locked"}), "status 500"),
        ((412, {"message": "A dashboard with the same name already exists", "status": "name-exists"}), "in the way"),
        ((200, "<html>Welcome to nginx</html>"), "is no Grafana"),
        ((200, ["a", "list"]), "is no Grafana"),
        ((404, "<html>not here</html>"), "no API of Grafana"),
        ((502, "<html>Bad Gateway</html>"), "status 502"),
    ],
)
def test_strange_answers_are_errors_that_can_be_acted_on(grafana: Store, broken: tuple[int, Any], what: str) -> None:
    grafana.broken = broken
    error = refused(grafana)
    assert what in error.what
    assert error.fix


def test_a_redirect_is_not_followed_since_a_post_would_become_a_get(grafana: Store) -> None:
    grafana.redirect = "http://127.0.0.1:1/login"
    error = refused(grafana)
    assert isinstance(error, UnreachableError)
    assert "sends elsewhere" in error.what


def test_nobody_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", EDITOR)
    with socket.socket() as bound:  # bound and not listening: nobody else is given the port, and nobody answers
        bound.bind(("127.0.0.1", 0))
        error = refused(Store(url=f"http://127.0.0.1:{bound.getsockname()[1]}"))
    assert isinstance(error, UnreachableError)
    assert "no Grafana answers" in error.what


@pytest.mark.parametrize(
    "url",
    ["", "grafana", "ftp://grafana", "http://", "http://u:p@grafana", "http://grafana:port", "http://g/?verify=0"],
)
def test_an_address_that_is_none_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", EDITOR)
    monkeypatch.delenv("GRAFANA_URL", raising=False)
    error = refused(Store(url=url))
    assert isinstance(error, UsageError)
    assert error.fix


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ünicode"])
def test_a_token_that_is_none_is_wrong_usage_and_not_repeated(
    grafana: Store, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", token)
    error = refused(grafana)
    assert isinstance(error, UsageError)
    assert not token or token not in error.what + error.why + error.fix


def test_a_token_file_that_cannot_be_read_is_wrong_usage(grafana: Store, tmp_path: Path) -> None:
    assert isinstance(refused(grafana, "--token-file", str(tmp_path / "none")), UsageError)


# -- whether it is there already ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "wanted", "there"),
    [
        ({"a": 1, "more": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, {"value": None}, True),
        ({"value": 0}, {"value": None}, False),
        ({"schemaVersion": 42}, {"schemaVersion": 41}, True),
        ({"schemaVersion": 40}, {"schemaVersion": 41}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1.0}, {"a": 1}, True),
        ([], {}, False),
    ],
)
def test_more_is_the_same_and_less_or_other_is_not(stored: Any, wanted: Any, there: bool) -> None:  # noqa: FBT001
    assert holds(stored, wanted) is there
