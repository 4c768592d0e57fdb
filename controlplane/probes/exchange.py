"""One request to one endpoint, and how it ends; pure.

An exchange may be asked more than once. While it is unanswered the wire asks again, each time on a connection of its
own, and whichever asking is answered first ends them all. A lost packet or a stuck connection is told apart from an
endpoint that hangs in the time of a single time-out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from controlplane.probes.probe import Failure


@dataclass(slots=True)
class Answer:
    """How an exchange ended."""

    at: float
    """Monotonic seconds."""
    took_s: float
    failure: Failure | None = None
    detail: str = ""
    status: int = 0
    body: bytes = b""
    served_by: str = ""
    first_s: float | None = None
    """Seconds until the first byte of the body; None without one."""
    certificate_ends: float | None = None
    """Unix seconds; None without TLS."""
    asked: int = 1
    """How many times it was asked; more than once only where nothing was answered in time."""


class Line(Protocol):
    """What an exchange needs of the connection it is sent on."""

    exchange: "Exchange | None"

    def abort(self) -> None:
        """End the connection at once."""


class Asker(Protocol):
    """What an exchange needs of whoever sends it."""

    def due(self, exchange: "Exchange", now: float) -> None:
        """Told when a moment of the exchange has come: to ask again, or the end of its time."""


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_asker", "asked_at", "connection", "done", "others", "over", "request", "retried", "sent", "times",
        "within_s",
    )  # fmt: skip

    def __init__(
        self,
        asker: Asker,
        request: bytes,
        asked_at: float,
        within_s: float,
        done: Callable[[Answer], None],
        times: int = 1,
    ) -> None:
        """Take what to ask.

        Args:
            asker: told when its moments have come.
            request: the whole request.
            asked_at: monotonic seconds.
            within_s: the time-out.
            done: called with the answer, once.
            times: how many times it may be asked before the time is out.
        """
        self._asker = asker
        self.request = request
        self.asked_at = asked_at
        self.within_s = within_s
        self.done = done
        self.times = times
        self.over = self.sent = self.retried = False
        self.connection: Line | None = None
        self.others: tuple[Exchange, ...] = ()
        """The further askings, each an exchange of its own; most exchanges have none."""

    def due(self, now: float) -> None:
        """Tell that a moment has come."""
        self._asker.due(self, now)

    def end(self, answer: Answer) -> None:
        """End with an answer to this asking."""
        self.over = True
        for other in self.others:
            other.drop()
        self.done(answer)

    def fail(self, failure: Failure, detail: str) -> None:
        """End without an answer; the connection, if there is one, is of no more use."""
        if self.over:
            return
        now = monotonic()
        pending = sum(not other.over for other in self.others)
        self.drop()
        self.end(Answer(now, now - self.asked_at, failure, detail, asked=1 + pending))

    def drop(self) -> None:
        """End it without telling anybody."""
        if self.over:
            return
        self.over = True
        if self.connection:
            self.connection.exchange = None
            self.connection.abort()

    def again(self, now: float) -> "Exchange":
        """Return another asking of the same; when it is answered, so is this."""
        other = Exchange(self._asker, self.request, now, self.within_s, self._answered_elsewhere)
        self.others = (*self.others, other)
        return other

    def _answered_elsewhere(self, answer: Answer) -> None:
        """Take what another asking came to; how one of them failed says less than the first one's silence."""
        if self.over or answer.failure:
            return
        self.drop()
        answer.took_s = answer.at - self.asked_at
        self.end(answer)
