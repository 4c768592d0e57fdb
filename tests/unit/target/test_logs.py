"""The log: one JSON object a line, also for what libraries say, and no failure when nobody reads it any more."""

import json
import logging

import pytest

from controlplane.target.logs import Log


def test_what_a_library_logs_becomes_a_line_with_its_stack_trace(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    Log(endpoint="e").adopt()
    try:
        logging.getLogger("some.library").error("it went wrong", exc_info=ValueError("lost"))
    finally:
        root.handlers = before
    line = json.loads(capsys.readouterr().out)
    assert (line["level"], line["msg"], line["logger"], line["endpoint"]) == (
        "error", "it went wrong", "some.library", "e",
    )  # fmt: skip
    assert "ValueError: lost" in line["exception"]


def test_a_reader_that_has_gone_away_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    Log().write("info", "nobody hears this")
