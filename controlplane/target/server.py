"""Runs one endpoint in this process: uvicorn with uvloop and httptools, from the port to the last drained request."""

import asyncio
import ctypes
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import torch
import uvicorn
import uvloop

from controlplane.target.app import Endpoint
from controlplane.target.connection import Connection
from controlplane.target.errors import TargetError
from controlplane.target.listening import bind
from controlplane.target.logs import Log
from controlplane.target.model import Transformer, device_named
from controlplane.target.publisher import publisher_for
from controlplane.target.spec import EndpointSpec
from controlplane.target.tracing import tracer_for

KEEP_ALIVE_S = 75
"""Longer than the gateway keeps idle connections, so that the gateway, not the endpoint, closes them."""
SWITCH_INTERVAL_S = 0.0005
"""How soon the worker thread gets the interpreter back from the event loop; Python's 5 ms would show as latency."""
DRAIN_POLL_S = 0.01
LOGGER = "controlplane.target"
FATAL = "EngineCore encountered a fatal error."
"""vLLM's words, which log rules match."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""mallopt(3)'s parameters."""
KEPT_BYTES = 1 << 30


def keep_memory() -> None:
    """Have glibc keep the memory of a step for the next one.

    It gives large pieces back to the kernel by default and fetches them again as zeroed pages; in a batch of 64 that
    costs more than the model's own work. Other C libraries have no ``mallopt`` and are left as they are.
    """
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
            library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


class DrainingServer(uvicorn.Server):
    """A server that, on SIGTERM, lets running requests finish before it closes its port, as vLLM does.

    Health stays 200 meanwhile: who balances load takes the endpoint out first. A second signal ends it at once.
    """

    def __init__(
        self, config: uvicorn.Config, endpoint: Endpoint, drain_timeout_s: float, on_ready: Callable[[], None]
    ) -> None:
        """Serve ``endpoint``, tell when the port is open, and give requests ``drain_timeout_s`` seconds to finish."""
        super().__init__(config)
        self._endpoint = endpoint
        self._on_ready = on_ready
        self._drain_timeout_s = drain_timeout_s
        self._drained_by: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port."""
        await super().startup(sockets)
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or stop when draining already."""
        if self._drained_by is not None:
            super().handle_exit(sig, frame)
        self._drained_by = time.monotonic() + self._drain_timeout_s
        self._endpoint.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Tell uvicorn, which asks ten times a second, whether to stop."""
        stop = await super().on_tick(counter)
        if self._drained_by is None:
            # A dead engine does not come back; whoever supervises this process starts another, as with vLLM.
            return stop or self._endpoint.engine.failure is not None
        while not stop and self._endpoint.app.in_flight and time.monotonic() < self._drained_by:
            await asyncio.sleep(DRAIN_POLL_S)
            stop = self.should_exit
        # What still runs is told so now, while its connection lives.
        self._endpoint.engine.close(0.0)
        return True


def listen(spec: EndpointSpec) -> socket.socket:
    """Take the endpoint's port.

    Raises:
        TargetError: when it is taken.
    """
    return bind(spec.host, spec.port)


def serve_endpoint(spec: EndpointSpec) -> int:
    """Serve one endpoint until SIGTERM or SIGINT.

    Returns:
        The process's exit code: 0 after a clean stop, 1 after the engine has died.

    Raises:
        TargetError: when the port is taken, the model unknown, or the device cannot do what is asked.
    """
    torch.set_num_threads(spec.threads)
    keep_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with listen(spec) as listener:
        model = _model(spec)
        # uvicorn raises the signal again when it has stopped; answering it with nothing makes that a clean exit.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        with suppress(KeyboardInterrupt):
            return uvloop.run(_serve(spec, model, listener))
    return 0


def _model(spec: EndpointSpec) -> Transformer:
    try:
        return Transformer(spec.shape, spec.num_blocks, spec.seed, device_named(spec.device), spec.precision)
    except torch.OutOfMemoryError as error:
        raise TargetError(
            f"cannot lay out the model and {spec.num_blocks} cache blocks on {spec.device}",
            "No available memory for the cache blocks",  # vLLM's words, which log rules match.
            "Choose fewer blocks, a smaller shape or fewer bits.",
        ) from error


async def _serve(spec: EndpointSpec, model: Transformer, listener: socket.socket) -> int:
    log = Log(logger=LOGGER, endpoint=spec.name, model=spec.model)
    log.adopt()
    tracer, warning = tracer_for(LOGGER, spec.name)
    if warning is not None:
        log.write("warning", warning, event="tracing")
    endpoint = Endpoint(spec, model, log, tracer)
    config = uvicorn.Config(
        endpoint.app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
    )
    endpoint.engine.start()
    url = f"http://{listener.getsockname()[0]}:{listener.getsockname()[1]}"

    def ready() -> None:
        log.write("info", "ready", event="ready", url=url, device=str(model.device), precision=spec.precision)

    try:
        async with publisher_for(spec, endpoint.metrics.registry) as publisher:
            endpoint.on_finished = publisher.offer if publisher else None
            await DrainingServer(config, endpoint, spec.drain_timeout_s, ready).serve(sockets=[listener])
    finally:
        endpoint.engine.close()
        tracer.close()
        failure = endpoint.engine.failure
        if failure is not None:
            log.failure(FATAL, failure, event="engine_dead")
        log.write("info", "stopped", event="stopped")
    return 0 if failure is None else 1
