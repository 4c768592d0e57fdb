"""Log lines in every form that engines write them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from controlplane.probes.lines import Line, read_line

CRASH = Path(__file__).parents[2] / "pages" / "vllm-0.32.0-enginecore-crash.log"


def test_a_structured_line_tells_of_its_request() -> None:
    text = '{"level": "error", "event": "failed", "request_id": "r-1", "queue_depth": 7, "processing_time": 1.5, "status": 503}'  # noqa: E501
    assert read_line(text) == Line("failed", "error", "r-1", 7.0, None, 1.5, 503)


def test_processing_time_may_come_in_milliseconds() -> None:
    assert read_line('{"processing_time_ms": 250}').processing_time_s == 0.25
    assert read_line("request_id=a processing_time=80ms").processing_time_s == 0.08
    assert read_line("request_id=a processing_time=1.5s").processing_time_s == 1.5


def test_vllms_form_is_understood() -> None:
    line = read_line("(APIServer pid=5477) WARNING 11-21 17:56:25 [system_utils.py:255] Found ulimit of 20000")
    assert (line.level, line.message) == ("warning", "Found ulimit of 20000")


def test_vllms_statistics_show_the_queue() -> None:
    line = read_line(
        "(APIServer pid=1) INFO 11-21 17:56:24 [loggers.py:1] Engine 000: Avg prompt throughput: 1.0 tokens/s, "
        "Avg generation throughput: 9.5 tokens/s, Running: 8 reqs, Waiting: 16 reqs, GPU KV cache usage: 63.8%"
    )
    assert (line.running, line.queue_depth) == (8, 16)


def test_sglangs_statistics_show_the_queue() -> None:
    line = read_line(
        "[2026-11-21 10:00:00 TP0] Decode batch, #running-req: 12, #token: 3456, token usage: 0.12, #queue-req: 3"
    )
    assert (line.running, line.queue_depth) == (12, 3)


def test_an_access_line_shows_the_status() -> None:
    line = read_line('INFO:     127.0.0.1:51514 - "POST /v1/completions HTTP/1.1" 503 Service Unavailable')
    assert (line.level, line.status) == ("info", 503)


def test_a_real_crash_is_fatal_and_its_start_is_not() -> None:
    lines = [read_line(text) for text in CRASH.read_text().splitlines()]
    assert sum(line.fatal for line in lines) >= 3
    assert any("died unexpectedly" in line.message for line in lines if line.fatal)


def test_only_fatal_xids_are_fatal() -> None:
    form = "NVRM: Xid (PCI:0000:65:00): %d, pid=1234, name=python, something"
    assert read_line(form % 79).fatal
    assert not read_line(form % 31).fatal


def test_a_word_in_an_answer_is_no_level() -> None:
    assert read_line("the user said error").level == ""


@given(st.text())
def test_no_line_raises(text: str) -> None:
    line = read_line(text)
    assert line.processing_time_s is None or line.processing_time_s >= 0


@given(st.dictionaries(st.sampled_from(["level", "queue_depth", "processing_time", "status", "request_id", "message"]), st.one_of(st.none(), st.text(), st.floats(), st.booleans(), st.lists(st.integers()))))  # fmt: skip # noqa: E501
def test_no_json_raises(fields: dict[str, object]) -> None:
    import json  # noqa: PLC0415

    read_line(json.dumps(fields))
