"""Every probe, against endpoints that misbehave: one endpoint costs one unknown, and nothing else.

The port's promises: a look never raises for what the other side does, ends within the probe's timeout, says what was
wrong, and leaves the looks at other endpoints alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic, process_time

import aiohttp
import pytest

from controlplane.fleet.model import Endpoint
from controlplane.probes.events import EventsProbe
from controlplane.probes.fetch import Pages
from controlplane.probes.gpu import Gpu, GpuProbe
from controlplane.probes.host import HostProbe
from controlplane.probes.http import HttpProbe, InferenceProbe, MetricsProbe
from controlplane.probes.logs import LogsProbe
from controlplane.probes.probe import (
    EventsSpec,
    Failure,
    GpuSpec,
    HostSpec,
    HttpSpec,
    InferenceSpec,
    LogsSpec,
    Look,
    MetricsSpec,
    Probe,
    PromqlSpec,
    TcpSpec,
)
from controlplane.probes.promql import PromqlProbe
from controlplane.probes.tcp import TcpProbe
from controlplane.probes.wheel import TICK_S, Lateness, Wheel
from controlplane.probes.wire import Wire
from tests.support.engine_pages import dcgm, node
from tests.support.misbehaving import BAD, GOOD, Server, misbehaving, vector
from tests.support.wires import said

WITHIN = timedelta(milliseconds=700)
GRACE_S = 1.5
"""How much longer than its timeout a look may take, in time in which this process got to run."""
PATIENT = timedelta(seconds=3)
"""The timeout of a look where others are not to be delayed by as much: a busy machine takes less than this."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with misbehaving() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def endpoint(server: Server, path: str, *, scheme: str = "http") -> Endpoint:
    """Return an endpoint whose every page misbehaves in one way."""
    return Endpoint(f"e-{path}", "primary", f"{scheme}://127.0.0.1:{server.port}/{path}", "node-a", "m")


def asking(
    name: str, server: Server, wire: Wire, session: aiohttp.ClientSession, path: str, scheme: str = "http"
) -> Probe:
    """Return a probe that will meet what `path` does; nodes' and servers' pages misbehave as endpoints do."""
    page = f"{scheme}://127.0.0.1:{server.port}/{path}"
    every = timedelta(0)
    made: dict[str, Callable[[], Probe]] = {
        "http": lambda: HttpProbe(wire, HttpSpec(path="/x", body="vllm:", timeout=WITHIN)),
        "tcp": lambda: TcpProbe(wire, TcpSpec(timeout=WITHIN)),
        "inference": lambda: InferenceProbe(wire, InferenceSpec(timeout=WITHIN)),
        "metrics": lambda: MetricsProbe(wire, MetricsSpec(path="/x", timeout=WITHIN), None, lambda: ""),
        "host": lambda: HostProbe(HostSpec(page, every=every, timeout=WITHIN), Pages(session)),
        "gpu": lambda: GpuProbe(GpuSpec(page, every=every, timeout=WITHIN), Pages(session)),
        "promql": lambda: PromqlProbe(
            PromqlSpec(page, {"queue_depth": "q"}, every=every, timeout=WITHIN), Pages(session)
        ),
    }
    return made[name]()


ASKING = ("http", "inference", "metrics", "host", "gpu", "promql")


async def looked(probe: Probe, at: Endpoint) -> Look:
    clock = Wheel(Lateness())
    clock.start()
    started, worked_s = monotonic(), process_time()
    look = await probe.look(at)
    await asyncio.sleep(2 * TICK_S)  # What was stolen at the very end is noted too.
    took_s, worked_s = monotonic() - started, process_time() - worked_s
    clock.stop()
    # A loop that did not turn because it worked was not stolen from: a probe may not hold up the others either.
    stolen_s = max(clock.lateness.stolen_since(started) - worked_s, 0.0)
    assert took_s - stolen_s < WITHIN.total_seconds() + GRACE_S
    assert (look.probe, look.endpoint) == (probe.name, at)
    return look


@pytest.mark.parametrize("path", BAD)
@pytest.mark.parametrize("name", ASKING)
async def test_what_misbehaves_costs_one_look_and_says_why(
    name: str, path: str, server: Server, wire: Wire, session: aiohttp.ClientSession
) -> None:
    if name == "http" and path in ("truncated", "encoding", "words", "duplicate"):
        return  # A health check does not parse what it is given.
    probe = asking(name, server, wire, session, path)
    look = await said(lambda: looked(probe, endpoint(server, path)))
    assert look.failure is not None, look
    assert look.page is None
    assert look.detail


@pytest.mark.parametrize("name", ASKING)
async def test_a_certificate_that_cannot_be_trusted_is_a_failed_look(
    name: str, server: Server, wire: Wire, session: aiohttp.ClientSession
) -> None:
    probe = asking(name, server, wire, session, "good", scheme="https")
    look = await looked(probe, endpoint(server, "good", scheme="https"))
    assert look.failure is not None
    assert look.page is None


@pytest.mark.parametrize("name", [*ASKING, "tcp"])
async def test_a_name_that_is_none_and_a_port_that_is_closed_are_told_apart(
    name: str, wire: Wire, session: aiohttp.ClientSession
) -> None:
    closed = Server(port=1)
    probe = asking(name, closed, wire, session, "x")
    look = await said(lambda: looked(probe, endpoint(closed, "x")))
    assert look.failure is Failure.REFUSED


@pytest.mark.parametrize("path", BAD)
async def test_a_connect_does_not_care_what_is_answered(
    path: str, server: Server, wire: Wire, session: aiohttp.ClientSession
) -> None:
    probe = asking("tcp", server, wire, session, path)
    look = await said(lambda: looked(probe, endpoint(server, path)))
    assert look.ok, look.detail


@pytest.mark.parametrize("path", ["slow", "endless", "huge", "garbage"])
async def test_one_endpoint_that_misbehaves_delays_no_other(path: str, server: Server, wire: Wire) -> None:
    probe = MetricsProbe(wire, MetricsSpec(path="/x", timeout=PATIENT), None, lambda: "")
    bad = [asyncio.create_task(probe.look(endpoint(server, path))) for _ in range(8)]
    await asyncio.sleep(0)
    started = monotonic()
    good = await probe.look(endpoint(server, "good"))
    took = monotonic() - started
    assert good.ok, good.detail
    assert good.page is not None
    assert good.page.gauges["queue_depth"] == 16
    assert took < PATIENT.total_seconds()
    assert all(look.failure for look in await asyncio.gather(*bad))


async def test_a_page_with_what_is_not_a_number_loses_those_signals_alone(server: Server, wire: Wire) -> None:
    probe = MetricsProbe(wire, MetricsSpec(path="/x", timeout=WITHIN), None, lambda: "")
    look = await said(lambda: looked(probe, endpoint(server, "nan")))
    assert look.ok, look.detail
    assert look.page is not None
    assert "requests_running" not in look.page.gauges
    assert look.page.gauges["kv_cache_utilization"] == 0.25


# --- every probe, on a good day ---------------------------------------------------------------------------------------


class Board:
    def read(self) -> tuple[Gpu, ...]:
        return (Gpu("a", 0.5),)

    def xids(self) -> tuple[int, ...]:
        return ()


@asynccontextmanager
async def well(name: str, server: Server, wire: Wire, session: aiohttp.ClientSession, tmp: Path) -> AsyncIterator[Probe]:  # fmt: skip # noqa: E501
    """Give a probe to which everything is as it should be."""
    server.pages |= {
        "/e/health": b"", "/e/metrics": GOOD, "/node": node(1, 1, 0), "/gpu": dcgm(),
        "/prom/api/v1/query": vector(({"endpoint": "e"}, 3)),
        "/e/v1/completions": b'{"choices":[{"text":"x"}],"usage":{"completion_tokens":4}}',
    }  # fmt: skip
    (tmp / "e.log").touch()
    pages, every = Pages(session), timedelta(0)
    made: dict[str, Callable[[], Probe]] = {
        "http": lambda: HttpProbe(wire, HttpSpec()),
        "tcp": lambda: TcpProbe(wire, TcpSpec()),
        "inference": lambda: InferenceProbe(wire, InferenceSpec()),
        "metrics": lambda: MetricsProbe(wire, MetricsSpec(), None, lambda: ""),
        "host": lambda: HostProbe(HostSpec(f"{server.url}/node", every=every), pages),
        "gpu": lambda: GpuProbe(GpuSpec(f"{server.url}/gpu", every=every), pages),
        "gpu, local": lambda: GpuProbe(GpuSpec(every=every), board=Board()),
        "promql": lambda: PromqlProbe(PromqlSpec(f"{server.url}/prom", {"queue_depth": "q"}, every=every), pages),
        "logs": lambda: LogsProbe(LogsSpec("{endpoint}.log"), tmp),
        "host, local": lambda: HostProbe(HostSpec(every=every)),
        "events": lambda: EventsProbe(session, EventsSpec(token_file="", ca_file="")),
    }
    probe = made[name]()
    if isinstance(probe, EventsProbe):
        for followed in (probe._pods, probe._events):
            followed.synced = True  # Lists of nothing have come.
    yield probe
    if isinstance(probe, LogsProbe):
        probe.close()


EVERY = ("http", "tcp", "inference", "metrics", "host", "host, local", "gpu", "gpu, local", "promql", "logs", "events")


@pytest.mark.parametrize("name", EVERY)
async def test_a_good_look_is_ok_names_its_probe_and_times_itself(
    name: str, server: Server, wire: Wire, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    at = Endpoint("e", "primary", f"{server.url}/e", "node-a", "m")
    async with well(name, server, wire, session, tmp_path) as probe:
        before = monotonic()
        look = await looked(probe, at)
        assert look.ok, look.detail
        assert before <= look.at <= monotonic()
        assert look.took_s >= 0
        assert (look.page is None) is (name in ("http", "tcp", "inference"))
        assert probe.every >= timedelta(0)


@pytest.mark.parametrize("name", EVERY)
async def test_many_looks_at_once_are_each_answered(
    name: str, server: Server, wire: Wire, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    at = [Endpoint("e", "primary", f"{server.url}/e", "node-a", "m") for _ in range(20)]
    async with well(name, server, wire, session, tmp_path) as probe:
        looks = await asyncio.gather(*(probe.look(one) for one in at))
        assert all(look.ok for look in looks), {look.detail for look in looks}


@pytest.mark.parametrize("name", EVERY)
async def test_a_look_that_is_cancelled_leaves_the_probe_usable(
    name: str, server: Server, wire: Wire, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    at = Endpoint("e", "primary", f"{server.url}/e", "node-a", "m")
    async with well(name, server, wire, session, tmp_path) as probe:
        task = asyncio.create_task(probe.look(at))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await probe.look(at)).ok
