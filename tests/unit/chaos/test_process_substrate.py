"""The process substrate against real process groups: it kills what was named, once, and nobody else."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from controlplane.chaos.fault import FaultDriver, FaultKind, Lease, LeaseState
from controlplane.chaos.keepers.keeper import started_after_boot_s
from controlplane.chaos.substrates import process as substrate
from controlplane.chaos.substrates.process import ProcessNodes
from controlplane.errors import FaultError
from controlplane.fleet.model import Endpoint

DEADLINE = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)


@pytest.fixture
def groups() -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for each in started:
        with suppress(ProcessLookupError):
            os.killpg(each.pid, signal.SIGKILL)
        each.wait()


@pytest.fixture
def victim(groups: list["subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
    """A process group of two, as an endpoint and its worker would be."""
    groups.append(subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True))
    return groups[-1]


@pytest.fixture
def stranger(groups: list["subprocess.Popen[bytes]"]) -> "subprocess.Popen[bytes]":
    groups.append(subprocess.Popen(["sleep", "60"], start_new_session=True))
    return groups[-1]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nothing listens on, kept from others by being bound."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def supervise(nodes: Path, victim: "subprocess.Popen[bytes]", **changes: object) -> None:
    """Write what a node's supervisor writes; what is changed to None it leaves out."""
    started_at = psutil.Process(victim.pid).create_time()
    page = {
        "pid": victim.pid, "pgid": victim.pid, "started_at": started_at,
        "started_after_boot_s": started_at - psutil.boot_time(),
    } | changes  # fmt: skip
    written = {name: value for name, value in page.items() if value is not None}
    (nodes / "node-a.json").write_text(json.dumps(written), encoding="utf-8")


def lease(port: int, key: str = "l1") -> Lease:
    endpoint = Endpoint("primary-0", "primary", f"http://127.0.0.1:{port}", node="node-a")
    return Lease(key, "d1", FaultKind.NODE_KILL, endpoint, DEADLINE, LeaseState.INTENDED, DEADLINE)


def hold(nodes: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((nodes / "node-a.hold").read_text(encoding="utf-8"))
    return content


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_it_fulfils_the_port(tmp_path: Path) -> None:
    driver: FaultDriver = ProcessNodes(tmp_path)
    assert driver


async def test_applying_kills_the_whole_group_and_holds_the_node_until_the_deadline(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim)
    members = [p for p in psutil.process_iter() if _group(p.pid) == victim.pid]
    assert members
    text = await ProcessNodes(tmp_path).apply(lease(port))
    assert victim.wait(timeout=5) == -signal.SIGKILL
    async with asyncio.timeout(5):
        while any(_lives(p) for p in members):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)
    assert hold(tmp_path) == {"until": DEADLINE.timestamp(), "lease": "l1"}
    assert str(victim.pid) in text
    assert names(tmp_path) == ["node-a.hold", "node-a.json"]


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


async def test_applying_twice_is_applying_once(tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int) -> None:
    supervise(tmp_path, victim)
    driver = ProcessNodes(tmp_path)
    await driver.apply(lease(port))
    victim.wait(timeout=5)
    before = hold(tmp_path)
    await driver.apply(lease(port))
    assert hold(tmp_path) == before


async def test_a_fault_is_proven_by_a_dead_process_and_a_refusing_port(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim)
    driver = ProcessNodes(tmp_path)
    await driver.apply(lease(port))
    victim.wait(timeout=5)
    proof = await driver.prove(lease(port))
    assert f"process {victim.pid} is gone" in proof
    assert "refuses connections" in proof


async def test_a_fault_is_proven_where_the_machine_stands_still_until_the_time_is_over(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(tmp_path, victim)
    driver = ProcessNodes(tmp_path)
    await driver.apply(lease(port))
    victim.wait(timeout=5)
    monkeypatch.setattr(substrate, "_GONE_WITHIN_S", 0.0)
    assert "refuses connections" in await driver.prove(lease(port))


async def test_a_process_that_lives_is_no_proof(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(substrate, "_GONE_WITHIN_S", 0.05)
    supervise(tmp_path, victim)
    assert await ProcessNodes(tmp_path).prove(lease(port)) == ""


async def test_a_port_that_still_answers_is_no_proof(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(substrate, "_GONE_WITHIN_S", 0.05)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        mine = lease(server.sockets[0].getsockname()[1])
        supervise(tmp_path, victim)
        await ProcessNodes(tmp_path).apply(mine)
        victim.wait(timeout=5)
        assert await ProcessNodes(tmp_path).prove(mine) == ""


async def test_reverting_lets_the_node_go_and_reverting_twice_is_reverting_once(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim)
    driver = ProcessNodes(tmp_path)
    await driver.apply(lease(port))
    first = await driver.revert(lease(port))
    assert not (tmp_path / "node-a.hold").exists()
    assert await driver.revert(lease(port)) == first


async def test_reverting_a_fault_that_never_was_is_success(tmp_path: Path, port: int) -> None:
    assert await ProcessNodes(tmp_path).revert(lease(port))


async def test_a_hold_of_another_lease_is_left_alone(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim)
    driver = ProcessNodes(tmp_path)
    await driver.apply(lease(port, "l2"))
    assert "another lease" in await driver.revert(lease(port, "l1"))
    assert hold(tmp_path)["lease"] == "l2"


async def test_the_residue_is_the_hold_then_the_silent_port_then_nothing(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim)
    driver = ProcessNodes(tmp_path)
    await driver.apply(lease(port))
    assert "still holds node-a down" in await driver.residue(lease(port))
    await driver.revert(lease(port))
    assert "does not accept connections" in await driver.residue(lease(port))
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        assert await driver.residue(lease(server.sockets[0].getsockname()[1])) == ""


async def test_a_process_id_that_was_given_to_somebody_else_is_not_killed(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim, started_after_boot_s=started_after_boot_s(victim.pid) - 60)
    await ProcessNodes(tmp_path).apply(lease(port))
    assert victim.poll() is None


async def test_a_process_is_killed_although_the_clock_was_set_since_its_supervisor_named_it(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervise(tmp_path, victim)
    booted_at = psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted_at + 1.0)
    await ProcessNodes(tmp_path).apply(lease(port))
    assert victim.wait(timeout=5) == -signal.SIGKILL


@pytest.mark.parametrize(("before_s", "status"), [(0.0, -signal.SIGKILL), (60.0, None)])
async def test_the_unix_time_of_a_start_counts_where_a_supervisor_gives_nothing_else(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int, before_s: float, status: int | None
) -> None:
    started_at = psutil.Process(victim.pid).create_time() - before_s
    supervise(tmp_path, victim, started_at=started_at, started_after_boot_s=None)
    await ProcessNodes(tmp_path).apply(lease(port))
    with suppress(subprocess.TimeoutExpired):
        victim.wait(timeout=5 if status else 0.2)
    assert victim.poll() == status


@pytest.mark.parametrize("pgid", [-1, 0, 1, "own"])
async def test_our_own_group_and_groups_that_mean_everybody_are_refused(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int, pgid: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: int) -> None:
        pytest.fail("it would have killed")

    monkeypatch.setattr(os, "killpg", kill)
    supervise(tmp_path, victim, pgid=os.getpgid(0) if pgid == "own" else pgid)
    with pytest.raises(FaultError, match="refusing to break"):
        await ProcessNodes(tmp_path).apply(lease(port))
    assert not (tmp_path / "node-a.hold").exists()


async def test_a_group_that_is_not_the_processs_own_is_not_killed(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", stranger: "subprocess.Popen[bytes]", port: int
) -> None:
    supervise(tmp_path, victim, pgid=stranger.pid)
    with suppress(FaultError):
        await ProcessNodes(tmp_path).apply(lease(port))
    with suppress(subprocess.TimeoutExpired):
        stranger.wait(timeout=0.2)
    assert stranger.poll() is None


async def test_a_kill_that_is_refused_leaves_no_hold_behind(
    tmp_path: Path, victim: "subprocess.Popen[bytes]", port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    supervise(tmp_path, victim)
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        with pytest.raises(FaultError) as refused:
            await ProcessNodes(tmp_path).apply(lease(port))
    assert "not permitted" in refused.value.why
    assert refused.value.fix
    assert not (tmp_path / "node-a.hold").exists()


async def test_a_node_nobody_supervises_here_is_refused_with_the_way_out(tmp_path: Path, port: int) -> None:
    with pytest.raises(FaultError, match="no node `node-a`") as refused:
        await ProcessNodes(tmp_path).apply(lease(port))
    assert "nodes_dir" in refused.value.fix
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "{}", '{"pid": null, "pgid": 2, "started_at": 0}'])
async def test_a_supervisors_page_of_another_shape_is_refused(tmp_path: Path, port: int, content: str) -> None:
    (tmp_path / "node-a.json").write_text(content, encoding="utf-8")
    with pytest.raises(FaultError, match="no node `node-a`"):
        await ProcessNodes(tmp_path).apply(lease(port))


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "{}"])
async def test_a_hold_that_cannot_be_read_is_nobodys_and_is_removed(tmp_path: Path, port: int, content: str) -> None:
    (tmp_path / "node-a.hold").write_text(content, encoding="utf-8")
    await ProcessNodes(tmp_path).revert(lease(port))
    assert not (tmp_path / "node-a.hold").exists()


async def test_a_hold_that_cannot_be_removed_is_a_fault_error(tmp_path: Path, port: int) -> None:
    (tmp_path / "node-a.hold").mkdir()
    with pytest.raises(FaultError):
        await ProcessNodes(tmp_path).revert(lease(port))
