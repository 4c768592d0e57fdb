"""Calls that may never return, each in a thread that nobody waits for; the probe of GPUs makes them.

A driver that hangs does so inside the kernel, and its thread cannot be stopped. In the pool of threads that
everybody shares such calls pile up until the levers get none. The threads of a pool are also waited for when the
process ends, which then never does; daemon threads are not.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """Makes one blocking call at a time, off the loop."""

    def __init__(self, name: str, call: Callable[[], T]) -> None:
        """Take what is called.

        Args:
            name: of the thread.
            call: blocks, and may do so for ever.
        """
        self._name = name
        self._call = call
        self._made: Future[T] | None = None

    @property
    def busy(self) -> bool:
        """Whether the last call has not returned, even where nobody waits for it any more."""
        return self._made is not None and not self._made.done()

    async def ask(self) -> T:
        """Make the call and return what it returns, or raise what it raises.

        Raises:
            TimeoutError: at once, when the last call has not returned.
        """
        if self.busy:
            raise TimeoutError("the last call has not returned")
        made = Future[T]()
        made.set_running_or_notify_cancel()  # From here on a cancelled wait leaves it to its thread.
        Thread(target=self._make, args=(made,), name=self._name, daemon=True).start()
        self._made = made
        try:
            return await asyncio.wrap_future(made)
        finally:
            if made.done():
                self._made = None  # What was returned may be large.

    def _make(self, made: Future[T]) -> None:
        try:
            made.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - whoever asked gets it, as from a pool of threads
            made.set_exception(error)
