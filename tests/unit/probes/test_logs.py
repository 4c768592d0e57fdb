"""Following a file over appends, rotation and truncation."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.fleet.model import Endpoint
from controlplane.probes.logs import LogsProbe, Tail
from controlplane.probes.probe import LogsSpec, Page

ENDPOINT = Endpoint("primary-1", "primary", "http://127.0.0.1:8000", "node-a")


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def test_what_was_there_before_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, "old")
    tail = Tail(path)
    assert tail.read() == []
    append(path, "new", "newer")
    assert tail.read() == ["new", "newer"]
    assert tail.read() == []
    tail.close()


def test_a_file_that_comes_later_is_read_from_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    tail = Tail(path)
    assert tail.read() == []
    append(path, "first")
    assert tail.read() == ["first"]
    tail.close()


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    tail = Tail(path)
    tail.read()
    with path.open("a") as file:
        file.write("one half")
        file.flush()
        assert tail.read() == []
        file.write(" and the other\n")
    assert tail.read() == ["one half and the other"]
    tail.close()


def test_rotation_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    tail = Tail(path)
    tail.read()
    append(path, "before")
    path.rename(tmp_path / "a.log.1")
    append(tmp_path / "a.log.1", "still the old one")
    append(path, "after")
    assert tail.read() == ["before", "still the old one", "after"]
    tail.close()


def test_truncation_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    tail = Tail(path)
    tail.read()
    append(path, "a long line of the old content")
    assert len(tail.read()) == 1
    os.truncate(path, 0)
    append(path, "short")
    assert tail.read() == ["short"]
    tail.close()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["write", "rotate", "read"]), st.integers(1, 5)), max_size=30))
def test_every_line_is_read_once_and_in_order(steps: list[tuple[str, int]]) -> None:
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.log"
        path.touch()
        tail = Tail(path)
        tail.read()
        written: list[str] = []
        read: list[str] = []
        rotations = 0
        for what, count in (*steps, ("read", 1)):
            if what == "write":
                lines = [f"line {len(written) + i}" for i in range(count)]
                append(path, *lines)
                written += lines
            elif what == "rotate":
                read += tail.read()  # More than one rotation between two looks leaves files that nothing leads to.
                rotations += 1
                path.rename(Path(directory) / f"a.log.{rotations}")
                path.touch()
            else:
                read += tail.read()
        tail.close()
        assert read == written


async def look(probe: LogsProbe) -> Page:
    found = await probe.look(ENDPOINT)
    assert found.ok
    assert found.page is not None
    return found.page


async def test_errors_and_dying_words_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "primary-1.log"
    path.touch()
    probe = LogsProbe(LogsSpec("{endpoint}.log"), tmp_path)
    assert (await look(probe)).counters == {"log_errors": 0, "log_fatals": 0}
    dying = "(EngineCore pid=1) ERROR 11-21 18:34:40 [core.py:1512] EngineCore encountered a fatal error."
    append(path, '{"level":"error","event":"x"}', dying, "\x00\xff garbage", "{broken json")
    seen = await look(probe)
    assert seen.counters == {"log_errors": 2, "log_fatals": 1}
    assert seen.notes == (dying,)
    assert seen.gauges == {}
    probe.close()


async def test_lines_may_stand_for_the_engine_where_it_has_no_page(tmp_path: Path) -> None:
    path = tmp_path / "primary-1.log"
    path.touch()
    probe = LogsProbe(LogsSpec("{endpoint}.log", engine=True), tmp_path)
    await look(probe)
    append(
        path, *(f'{{"request_id":"{i}","queue_depth":{i},"processing_time":0.{i},"status":200}}' for i in range(1, 5))
    )
    append(path, '{"status": 500}')
    seen = await look(probe)
    assert seen.counters["requests"] == 5
    assert seen.counters["server_errors"] == 1
    assert seen.gauges == {"queue_depth": 4}
    assert seen.histograms["latency_p99"].cumulative[-1] == 4
    probe.close()


async def test_a_name_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    probe = LogsProbe(LogsSpec("logs/{endpoint}.log"), tmp_path)
    path = probe._path(Endpoint("../../etc/passwd", "primary", "http://127.0.0.1:1"))
    assert path.parent == tmp_path / "logs"
