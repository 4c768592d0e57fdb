"""A real Envoy with the reference fleet's own documents, in front of endpoints that answer at once."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.target import gateway, gateway_clusters
from controlplane.target.envoy import find_envoy
from controlplane.target.gateway import Doors
from controlplane.target.gateway_clusters import Place
from controlplane.target.spec import GatewaySpec, PoolSpec
from tests.support.answering import Answering, answering
from tests.support.processes import Running, ask, free_port

POOLS = {"primary": PoolSpec(3, "base"), "standby": PoolSpec(1, "base"), "base": PoolSpec(1, "base")}


@dataclass(slots=True)
class Envoy:
    """A running gateway."""

    folder: Path
    places: dict[str, list[Place]]
    doors: Doors
    pools: Mapping[str, PoolSpec] = field(default_factory=lambda: POOLS)
    spec: GatewaySpec = field(default_factory=GatewaySpec)

    @property
    def xds(self) -> Path:
        """The directory it watches."""
        return self.folder / "xds"

    @property
    def admin(self) -> str:
        """Its admin address."""
        return f"http://127.0.0.1:{self.doors.admin}"

    @property
    def listener(self) -> str:
        """Where users' requests enter."""
        return f"http://127.0.0.1:{self.doors.public}"

    def write(self) -> None:
        """Write every document as a fleet does at its start: all traffic to the first pool, nobody cordoned."""
        self.xds.mkdir(parents=True, exist_ok=True)
        listeners = gateway.listeners(self.folder, self.doors, "primary", self.folder / "access.log", self.spec)
        documents = {
            **{gateway_clusters.eds_file(p): gateway_clusters.endpoints(p, found) for p, found in self.places.items()},
            "rds": gateway.routes({pool: 100 if pool == "primary" else 0 for pool in self.pools}, spec=self.spec),
            "cds": gateway_clusters.clusters(self.folder, self.pools, self.spec),
            "lds": listeners,
        }
        for name, document in documents.items():
            beside = self.xds / f".{name}.part"
            beside.write_text(json.dumps(document), encoding="utf-8")
            beside.replace(self.xds / f"{name}.json")

    def files(self) -> dict[str, Any]:
        """Return what the documents hold."""
        return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.xds.glob("*.json"))}

    def answered(self, requests: int, **headers: str) -> Counter[tuple[int, str]]:
        """Send requests one after another; count them by status and by who answered."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answers = [ask(f"{self.listener}/v1/completions", "POST", {"prompt": "x"}, sent) for _ in range(requests)]
        return Counter((answer.status, answer.headers.get("x-served-by", "")) for answer in answers)


@contextmanager
def envoy(folder: Path) -> Iterator[Envoy]:
    """Run it, with endpoints that answer at once."""
    with ExitStack() as stack:
        places = {
            pool: [Place(f"{pool}-{n}", "127.0.0.1", stack.enter_context(endpoint())) for n in range(spec.endpoints)]
            for pool, spec in POOLS.items()
        }
        yield stack.enter_context(envoy_to(places, POOLS, folder))


@contextmanager
def envoy_to(places: dict[str, list[Place]], pools: Mapping[str, PoolSpec], folder: Path) -> Iterator[Envoy]:
    """Run it in front of endpoints that are there."""
    (folder.parent / "logs").mkdir(exist_ok=True)
    found = Envoy(folder, places, Doors(free_port(), free_port()), pools)
    found.write()
    bootstrap = folder / "bootstrap.json"
    bootstrap.write_text(json.dumps(gateway.bootstrap(folder, found.doors.admin)), encoding="utf-8")
    line: list[str | Path] = [
        find_envoy(None), "--config-path", bootstrap, "--concurrency", "1", "--disable-hot-restart",
            "--log-level", "warning"]  # fmt: skip
    with Running(line, folder.parent / "logs" / "envoy.log") as process:
        process.until(lambda: _ready(found), "Envoy routes", 20)
        yield found


def _ready(found: Envoy) -> bool:
    try:
        return any(status == 200 for status, _ in found.answered(1))
    except OSError:
        return False


@contextmanager
def endpoint() -> Iterator[int]:
    """Run an endpoint that answers every completion at once; yield its port."""

    class Handler(Answering):
        def do_POST(self) -> None:
            self.body()
            self.say(b"{}")

    with answering(Handler) as port:
        yield port
