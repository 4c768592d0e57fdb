"""Only the control plane in charge breaks something; ending a fault is free."""

from datetime import UTC, datetime

import pytest

from controlplane.chaos.fault import FaultKind, Lease, LeaseState
from controlplane.chaos.fencing import FencedFaults
from controlplane.errors import FaultError, FencedError
from controlplane.fleet.model import Endpoint

T0 = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
LEASE = Lease("l1", "d1", FaultKind.NODE_KILL, Endpoint("e", "p", "http://x"), T0, LeaseState.INTENDED, T0)


class Driver:
    """Notes what it was told."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def apply(self, lease: Lease) -> str:
        self.done.append("apply")
        return "killed"

    async def prove(self, lease: Lease) -> str:
        return "gone"

    async def revert(self, lease: Lease) -> str:
        self.done.append("revert")
        return "back"

    async def residue(self, lease: Lease) -> str:
        return ""


async def ours() -> None:
    """Be in charge."""


async def theirs() -> None:
    raise FencedError("not in charge any more", "the newest term is b's", "ask the other one")


async def test_whoever_is_in_charge_injects() -> None:
    inner = Driver()
    assert await FencedFaults(inner, ours).apply(LEASE) == "killed"
    assert inner.done == ["apply"]


async def test_whoever_is_not_breaks_nothing_and_ends_everything() -> None:
    inner = Driver()
    fenced = FencedFaults(inner, theirs)
    with pytest.raises(FaultError, match="node-kill was not injected: not in charge any more") as refused:
        await fenced.apply(LEASE)
    assert (refused.value.why, refused.value.fix) == ("the newest term is b's", "ask the other one")
    assert (await fenced.prove(LEASE), await fenced.revert(LEASE), await fenced.residue(LEASE)) == ("gone", "back", "")
    assert inner.done == ["revert"]
