"""The link's control file, and what a dying process looks like."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from controlplane.target.link_fault import Fault, read_fault
from controlplane.target.relay import dying

NOW = 1000.0


def text(**fault: Any) -> str:
    return json.dumps({"mode": "drop", "until": NOW + 1, "lease": "l", **fault})


def test_a_control_file_says_how_the_link_behaves_and_until_when() -> None:
    assert read_fault(text(), NOW) == Fault("drop", 0.0, NOW + 1, "l")
    assert read_fault(text(mode="delay", delay_ms=250), NOW) == Fault("delay", 0.25, NOW + 1, "l")


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "{}", text(until=NOW), text(until=None), text(until="soon"), text(mode="burn"),
        text(mode="delay", delay_ms=-1), text(mode="delay", delay_ms="much"),
    ],
)  # fmt: skip
def test_a_file_that_is_over_endless_or_unreadable_is_no_fault(content: str) -> None:
    assert read_fault(content, NOW) is None


def test_a_process_is_dying_once_it_is_dead_even_before_its_parent_notices() -> None:
    assert not dying(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert not dying(child.pid)
    child.kill()
    deadline = time.monotonic() + 5.0
    while not dying(child.pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert dying(child.pid)
    child.wait()
    assert dying(child.pid)
