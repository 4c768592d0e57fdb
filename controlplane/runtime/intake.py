"""Running the intake: the one writer of alerts, and the looks at Alertmanager that make good what it was not told.

Joined by `wiring`, scheduled by `server`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from time import monotonic

import structlog

from controlplane.clock import utcnow
from controlplane.errors import StoreError
from controlplane.flows.intake import Intake, IntakePorts
from controlplane.flows.reconcile import Look, ReconcilePorts, reconcile, recount, remember
from controlplane.runtime.alerts import FiringAlerts
from controlplane.store.alerts import StoredAlerts
from controlplane.telemetry import Metrics

RECONCILE_EVERY = timedelta(minutes=1)
RECOUNT_EVERY_S = 0.5
"""Where several control planes share the database: an alert that another one took in is seen so soon."""
RECOUNT_SHARE = 0.1
"""Counting takes no more of the store's time than this: a hundred thousand alerts are counted more seldom."""
ASKED_AGAIN_AFTER_S = 5.0
"""Alerts that were left out of webhooks are asked for once in so many seconds at most."""
WRITER_PAUSE_S = 1.0

log = structlog.get_logger("intake")


class AlertDesk:
    """Takes alerts in and keeps the books true."""

    def __init__(
        self,
        book: StoredAlerts,
        firing: FiringAlerts,
        listing: Callable[[], Awaitable[bytes]] | None,
        metrics: Metrics,
        spawn: Callable[[Coroutine[None, None, None]], asyncio.Task[None]],
    ) -> None:
        """Take the parts.

        Args:
            book: what is written down.
            firing: who tells the matrix what fires.
            listing: what Alertmanager's API answers; None without one on the page.
            metrics: the control plane's own.
            spawn: starts a task of the process's own.
        """
        self._spawn = spawn
        self._look, self._looking, self._looked_at = Look(), asyncio.Lock(), -ASKED_AGAIN_AFTER_S
        self._left_out = False
        """Whether a webhook left alerts out since the last look began."""
        self._asking: asyncio.Task[None] | None = None
        """Asks for them; None before anything was ever left out."""
        self._reconciling = ReconcilePorts(listing, book, firing.heard, firing.counted, metrics, utcnow)
        self._intake = Intake(IntakePorts(book, firing.heard, metrics, utcnow, self._truncated))
        self.take, self.put = self._intake.take, self._intake.put
        self.pages = book.page

    async def remember(self) -> None:
        """Know what fired when we were stopped.

        Raises:
            StoreError: when it cannot be read.
        """
        await remember(self._reconciling)

    async def write(self) -> None:
        """Write down what is posted, until it is called off; whatever happens, the next one is written."""
        while True:
            try:
                await self._intake.run()
            except Exception:
                log.exception("the writer of alerts failed")
                await asyncio.sleep(WRITER_PAUSE_S)

    async def reconcile(self) -> None:
        """Hold the books against Alertmanager; called every minute.

        Raises:
            StoreError: when the database refuses.
        """
        async with self._looking:
            self._look = await self._compare(self._look)

    async def follow(self) -> None:
        """Count again and again what others on the same database took in, until called off."""
        while True:
            began = monotonic()
            try:
                await recount(self._reconciling)
            except StoreError as error:
                log.warning("alerts not counted", what=error.what, why=error.why, fix=error.fix)
            await asyncio.sleep(max(RECOUNT_EVERY_S, (monotonic() - began) / RECOUNT_SHARE))

    def _truncated(self) -> None:
        """Ask for what was left out, soon; a look that is under way may have been answered before."""
        self._left_out = True
        if self._asking is None or self._asking.done():
            self._asking = self._spawn(self._take_in())

    async def _take_in(self) -> None:
        """Look until one look began after the last webhook that left something out.

        Nothing is ended by such a look, since the last one may be seconds ago.
        """
        while self._left_out:
            await asyncio.sleep(max(0.0, self._looked_at + ASKED_AGAIN_AFTER_S - monotonic()))
            async with self._looking:
                if self._left_out and monotonic() - self._looked_at >= ASKED_AGAIN_AFTER_S:
                    await self._compare(Look())

    async def _compare(self, last: Look) -> Look:
        self._looked_at, self._left_out = monotonic(), False
        return await reconcile(self._reconciling, last)
