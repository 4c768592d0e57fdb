"""`controlplane check --live`: the metrics pages there are now, against what is read from them."""

import asyncio
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table
from rich.text import Text

from controlplane.degradation.matrix import signals_of
from controlplane.errors import UsageError
from controlplane.fleet.model import Endpoint
from controlplane.policy.load import Loaded
from controlplane.probes.contract import Contract, inspect, on_pages
from controlplane.probes.probe import MetricsSpec
from controlplane.runtime.grounds import inventory_of
from controlplane.signals.engines import ENGINES, EngineNames, engine_named

MAX_BYTES = 16 * 1024 * 1024
AT_ONCE = 16
TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Inspected:
    """One page and what was found on it."""

    name: str
    url: str
    contract: Contract


def inspect_fleet(loaded: Loaded) -> tuple[Inspected, ...]:
    """Fetch every endpoint's page and compare it.

    Raises:
        UsageError: when the policy has no endpoint to ask.
    """
    inventory = asyncio.run(inventory_of(loaded).listed())
    if not inventory.endpoints:
        why = "; ".join(inventory.problems) or "its pools are empty"
        raise UsageError("there is no endpoint to ask", why, "start the fleet, or name its pages: check --live URL")
    spec = next((p.metrics for p in loaded.policy.probes if p.metrics), MetricsSpec())
    named = engine_named(loaded.policy.fleet.engine)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return tuple(threads.map(partial(_of_endpoint, spec.path, named), inventory.endpoints))


def relied_on(loaded: Loaded, pages: tuple[Inspected, ...]) -> tuple[str, ...]:
    """Return what the policy relies on and no page of the primary pool tells, each as a line.

    A threshold or a row on such a signal is always unknown: it never trips, and nobody hears of it.
    """
    primary = [page.contract for page in pages if page.name.startswith("primary/") and page.contract.engine]
    if not primary:
        return ()
    told = {signal for contract in primary for signal in contract.told}
    readable = {name for engine in ENGINES.values() for name in on_pages(engine)}
    wanted = {name: f"threshold `{name}`" for name in loaded.policy.thresholds}
    for level, row in loaded.policy.degradation.rows.items():
        wanted |= dict.fromkeys(signals_of(row.when), f"row {level}")
    from_elsewhere = {query for probe in loaded.policy.probes if probe.promql for query in probe.promql.queries}
    return tuple(
        f"{what} looks at {name}, which no page of the primary pool tells"
        for name, what in wanted.items()
        if name in readable and name not in told and name not in from_elsewhere and not name.startswith("gpu")
    )


def _of_endpoint(path: str, named: EngineNames | None, endpoint: Endpoint) -> Inspected:
    return inspect_page(f"{endpoint.pool}/{endpoint.name}", endpoint.url + path, named)


def inspect_page(name: str, address: str, named: EngineNames | None) -> Inspected:
    """Read one page, from its URL or from a file, and compare it."""
    try:
        content = _read(address)
    except (OSError, ValueError) as error:
        return Inspected(name, address, Contract("", problems=(f"it cannot be fetched: {error}",)))
    return Inspected(name, address, inspect(content, named))


def _read(address: str) -> bytes:
    if not address.startswith(("http://", "https://")):
        return Path(address).read_bytes()
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:  # noqa: S310 - checked above
        content: bytes = response.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return content


def table(pages: tuple[Inspected, ...]) -> Table:
    """Draw what was found."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), show_lines=False)
    for column in ("page", "engine", "told", "not told", "old names on it"):
        drawn.add_column(column, overflow="fold")
    for page in pages:
        found = page.contract
        old = ", ".join(f"{name} -> {new or 'gone'}" for name, new in (found.old or {}).items())
        lacking = Text(", ".join(found.lacking) or "-", "yellow" if found.lacking else "dim")
        engine = Text(found.engine or "not known", "" if found.engine else "red")
        drawn.add_row(page.name, engine, f"{len(found.told)} signals", lacking, old or "-")
    return drawn
