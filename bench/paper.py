"""A gateway and a hand made of paper: the journeys and the store are real, what they move is files that tell the truth.

Used by the benches `exactly-once` and `receipt-crash` and by the tests that run them short: every move is appended to a
log and is on disk before the call returns, so that nothing a process does before it is killed is forgotten.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from controlplane.clock import utcnow
from controlplane.degradation.action import Errand, Notify, Scale, SwitchPool, spell_actions
from controlplane.degradation.actuator import Hand, Observed, Preflight, Receipt, RoutePlan
from controlplane.degradation.fencing import FencedActuator, FencedHand, Term
from controlplane.degradation.matrix import Condition, Level, ReleasePlan, Row
from controlplane.errors import ActuatorError
from controlplane.fleet.model import Endpoint
from controlplane.flows import recover, switch
from controlplane.flows.carry import InHand, Levers
from controlplane.flows.recover import RecoverPorts
from controlplane.flows.switch import Order, SwitchPorts
from controlplane.probes.probe import Look
from controlplane.runtime.leader import Leadership
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.drills import StoredDrills, StoredLeases
from controlplane.store.incidents import StoredIncidents
from controlplane.store.leader import StoredTerms
from controlplane.store.receipts import StoredReceipts
from controlplane.telemetry import Metrics
from controlplane.wholefile import write_whole

SERVICE = "paper"
NORMAL = RoutePlan({"primary": 100})
SWITCHED = RoutePlan({"primary": 0, "standby": 100}, Level.P0)
STANDBY = Endpoint("standby-0", "standby", "http://paper")
SPLIT_ONLY = (SwitchPool(),)
SEVERAL = (Notify("oncall"), SwitchPool(), Scale("deployment/x", replicas=4))


def row(do: tuple[Any, ...]) -> Row:
    """Return a P0 row with these actions."""
    return Row(Level.P0, Condition("endpoints_down", above=1.0), do, timedelta(minutes=5), ReleasePlan())


class Log:
    """Lines on disk; appended whole by several processes at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, **line: object) -> None:
        """Append one line; it is on disk when this returns."""
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, (json.dumps(line) + "\n").encode())
            os.fsync(file)
        finally:
            os.close(file)

    def lines(self) -> list[dict[str, Any]]:
        """Return what was appended, in order."""
        with suppress(FileNotFoundError):
            return [json.loads(line) for line in self._path.read_text(encoding="utf-8").splitlines()]
        return []


class PaperGateway:
    """An actuator whose gateway is a file."""

    def __init__(self, folder: Path, plane: str, token: Callable[[], int]) -> None:
        self._path = folder / "gateway.json"
        self._log = Log(folder / "applied.log")
        self._plane = plane
        self._token = token

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Refuse nothing."""
        return Preflight(preview=f"{dict(plan.weights)}")

    async def apply(self, plan: RoutePlan, key: str) -> None:
        """Write the plan down."""
        token = self._token()
        self._log.add(key=key, plan=_split(plan.weights), plane=self._plane, token=token)
        try:
            write_whole(self._path, json.dumps({"weights": _split(plan.weights), "level": plan.level}))
        except OSError as error:
            raise ActuatorError("the paper gateway refuses", str(error)) from error

    async def configured(self) -> Observed:
        """Read what is written."""
        return shown(self._path.parent)

    async def sample(self, requests: int) -> Observed:
        """Answer as the file says."""
        live = shown(self._path.parent)
        return Observed(live.weights, live.level, ("paper",) * requests, (live.level,) * requests)


def shown(folder: Path) -> Observed:
    """Return what the paper gateway shows; the normal split until it was written."""
    try:
        page = json.loads((folder / "gateway.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Observed({"primary": 100}, Level.NONE)
    return Observed(page["weights"], page["level"])


def _split(weights: Mapping[str, int]) -> dict[str, int]:
    return {pool: weight for pool, weight in weights.items() if weight}


class PaperHand:
    """A hand whose errands are files that are there or not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = Log(folder / "errands.log")

    def _path(self, errand: Errand) -> Path:
        return self._folder / f"{type(errand).__name__.lower()}.done"

    async def preflight(self, errand: Errand) -> Preflight:
        """Refuse nothing."""
        return Preflight(preview=spell_actions((errand,)), before={"was": 1})

    async def apply(self, errand: Errand, key: str) -> str:
        """Do it."""
        self._log.add(did=spell_actions((errand,)), key=key)
        write_whole(self._path(errand), key)
        return "done"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:
        """Undo it."""
        self._log.add(undid=spell_actions((errand,)), key=key, before=dict(before))
        self._path(errand).unlink(missing_ok=True)
        return "undone"

    async def observe(self, errand: Errand, key: str, done: str) -> str:  # noqa: ARG002
        """Look whether it is done."""
        return "seen" if self._path(errand).exists() else ""


def errands_done(folder: Path) -> list[str]:
    """Return the errands that are in force."""
    return sorted(path.stem for path in folder.glob("*.done"))


async def _answers(endpoint: Endpoint) -> Look:
    return Look(endpoint, "inference", 0.0, 0.0)


@dataclass(slots=True)
class PaperPlane:
    """A control plane whose store, lease and journeys are the real ones."""

    switching: SwitchPorts
    recovering: RecoverPorts
    leadership: Leadership
    receipts: StoredReceipts
    row: Row

    async def take_part(self) -> tuple[Receipt, ...] | None:
        """Settle what is half done when we come to be in charge; None when there was nothing to do."""
        term = self.leadership.term
        if term is None:
            self.recovering.in_hand.receipts.clear()
        elif not self.leadership.acting and not self.recovering.in_hand.moving:
            engaged = await recover.settle_receipts(self.recovering)
            self.leadership.settled(term)
            return engaged
        return None

    def order(self, episode: int) -> Order:
        """Return the order to engage the row for the how-manieth time."""
        now = utcnow()
        return Order(SERVICE, self.row, NORMAL, SWITCHED, ("endpoints_down is 100%",), now, now, episode=episode)

    async def release(self, receipt: Receipt) -> None:
        """Give the traffic back by two steps, and close."""
        for share in (50, 100):
            plan = RoutePlan({"primary": share, "standby": 100 - share}, Level.P0 if share < 100 else Level.NONE)
            await switch.shift(self.switching, receipt, plan, f"{share}% goes back")
        await switch.close(self.switching, receipt)


Wrap = Callable[[str, Any], Any]
"""Puts something around a port (`receipts`, `incidents`, `actuator`, `hand`): the harness that kills."""


def paper_plane(
    folder: Path,
    name: str,
    *,
    do: tuple[Any, ...] = SPLIT_ONLY,
    ttl_s: float = 4.0,
    fenced: bool = True,
    wrap: Wrap = lambda _, port: port,
) -> tuple[PaperPlane, Database]:
    """Join a control plane of paper on the database in a folder.

    Args:
        folder: holds the database, the gateway and the logs; several processes may share it.
        name: who this control plane is.
        do: the actions of its one row.
        ttl_s: how long its lease holds, in seconds.
        fenced: False leaves out the lease: then nothing but the keys keeps two of them apart.
        wrap: put around each port.
    """
    database = open_database(sqlite_url(folder / "state.db"))
    leadership = Leadership(StoredTerms(database), SERVICE, name, Metrics(), ttl_s)

    def term() -> Term | None:
        return leadership.term

    def token() -> int:
        held = leadership.term
        return held.token if held else 0

    async def free() -> None:
        """Let everybody pass."""

    fence = leadership.confirm if fenced else free
    receipts = StoredReceipts(database, term if fenced else None)
    hand: Hand = FencedHand(wrap("hand", PaperHand(folder)), fence)
    levers = Levers(
        FencedActuator(wrap("actuator", PaperGateway(folder, name, token)), fence), {Notify: hand, Scale: hand}
    )
    in_hand = InHand()
    book, p0 = wrap("receipts", receipts), row(do)
    switching = SwitchPorts(
        levers, book, wrap("incidents", StoredIncidents(database)), _answers, lambda _: (STANDBY,), utcnow,
        in_hand=in_hand,
    )  # fmt: skip
    recovering = RecoverPorts(
        SERVICE, book, StoredLeases(database), StoredDrills(database), levers, None, utcnow, {Level.P0: p0},
        in_hand=in_hand,
    )  # fmt: skip
    return PaperPlane(switching, recovering, leadership, receipts, p0), database
