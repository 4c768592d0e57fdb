"""What pods of a lab answer with: one server on every address of 127.0.0.0/8, as engines with nothing to do would."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.answering import Answering, answering

COMPLETION = {"choices": [{"text": "pong"}], "usage": {"completion_tokens": 1}}


class _Engine(Answering):
    def do_GET(self) -> None:
        self.say(b"")

    def do_POST(self) -> None:
        self.body()
        self.say(json.dumps(COMPLETION).encode())


@contextmanager
def engines() -> Iterator[int]:
    """Run the server; give its port, which every loopback address has."""
    with answering(_Engine, "0.0.0.0") as port:  # noqa: S104 - pods have addresses of their own
        yield port
