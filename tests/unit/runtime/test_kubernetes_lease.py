"""A Lease of Kubernetes: one holds it, numbers only grow, it runs out by the clock of whoever looks, and it fences."""

import copy
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controlplane.degradation.fencing import Held, Term
from controlplane.errors import FencedError, StoreError, UnreachableError, UsageError
from controlplane.runtime.kubernetes_lease import KubernetesTerms, LeaseApi
from controlplane.settings import LeasePlace, read_leader
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.leader import StoredTerms
from tests.support.lease_server import LeaseServer, lease_server

TTL_S = 4.0


class Object:
    """A Lease as an API server keeps it: every write names the version it replaces."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] | None = None
        self.version = 0
        self.works = True
        self.before_write: Any = None

    async def read(self) -> dict[str, Any] | None:
        self._must_work()
        return copy.deepcopy(self.kept)

    async def write(self, lease: dict[str, Any]) -> dict[str, Any] | None:
        self._must_work()
        if self.before_write:
            hook, self.before_write = self.before_write, None
            await hook()
        named = lease["metadata"].get("resourceVersion")
        there = self.kept["metadata"]["resourceVersion"] if self.kept else None
        if named != there:
            return None
        self.put(lease)
        return copy.deepcopy(self.kept)

    def put(self, lease: dict[str, Any]) -> None:
        """Replace it without asking."""
        self.version += 1
        metadata = {**lease["metadata"], "resourceVersion": str(self.version)}
        self.kept = copy.deepcopy({**lease, "metadata": metadata})

    def _must_work(self) -> None:
        if not self.works:
            raise UnreachableError("the API server is gone")


class World:
    """Two control planes, one Lease, one database, and a clock for each."""

    def __init__(self, first: Database, second: Database) -> None:
        self.lease = Object()
        self.waited = 0.0
        self.clocks = [100.0, 90_000.0]
        began = [datetime(2026, 1, 1, tzinfo=UTC), datetime(1999, 1, 1, tzinfo=UTC)]
        self.ledgers = StoredTerms(first), StoredTerms(second)
        self.books = tuple(
            KubernetesTerms(self.lease, ledger, partial(self.clock, i), partial(self.time, began[i]))
            for i, ledger in enumerate(self.ledgers)
        )

    def clock(self, which: int) -> float:
        return self.clocks[which]

    def time(self, began: datetime) -> datetime:
        return began + timedelta(seconds=self.waited)

    def wait(self, seconds: float) -> None:
        self.waited += seconds
        self.clocks = [clock + seconds for clock in self.clocks]

    async def take(self, which: int, ttl_s: float = TTL_S) -> Term | Held:
        return await self.books[which].take("chat", f"pod-{which}", ttl_s)

    async def taken(self, which: int) -> Term:
        found = await self.take(which)
        assert isinstance(found, Term), found
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    url = sqlite_url(tmp_path / "state.db")
    with closing(open_database(url)) as first, closing(open_database(url)) as second:
        yield World(first, second)


async def free_in_the_database(world: World, term: Term) -> None:
    """Let the database's own lease run out; its clock is not ours to turn."""
    await world.ledgers[0].resign(term)


async def test_one_holds_it_and_the_others_know_who_and_for_how_long(world: World) -> None:
    assert await world.taken(0) == Term("chat", "pod-0", 1)
    world.wait(1.0)
    assert await world.take(1) == Held("pod-0", TTL_S), "seen for the first time"
    world.wait(1.5)
    assert await world.take(1) == Held("pod-0", TTL_S - 1.5)
    assert world.lease.kept
    spec = world.lease.kept["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"], spec["leaseTransitions"]) == ("pod-0", 4, 1)
    assert spec["renewTime"] == "2026-01-01T00:00:00.000000Z"


async def test_one_that_is_renewed_never_runs_out_however_wrong_the_clocks_are(world: World) -> None:
    term = await world.taken(0)
    for _ in range(10):
        world.wait(2.0)
        assert await world.books[0].renew(term, TTL_S)
        assert isinstance(await world.take(1), Held)


async def test_one_that_was_not_renewed_is_taken_over_with_a_larger_number_and_its_holder_can_do_nothing(
    world: World,
) -> None:
    old = await world.taken(0)
    assert isinstance(await world.take(1), Held)
    world.wait(TTL_S)
    await free_in_the_database(world, old)
    new = await world.taken(1)
    assert new == Term("chat", "pod-1", 2)
    with pytest.raises(FencedError):
        await world.books[0].confirm(old)
    assert not await world.books[0].renew(old, TTL_S)
    await world.books[1].confirm(new)
    assert await world.books[1].renew(new, TTL_S)


async def test_the_database_knows_of_a_term_before_anything_is_done_in_it(world: World) -> None:
    term = await world.taken(0)
    assert await world.ledgers[1].newest("chat") == term


async def test_a_lease_that_somebody_deleted_goes_on_behind_the_last_number(world: World) -> None:
    old = await world.taken(0)
    world.lease.kept = None
    assert not await world.books[0].renew(old, TTL_S)
    await free_in_the_database(world, old)
    assert await world.taken(1) == Term("chat", "pod-1", 2)
    with pytest.raises(FencedError):
        await world.books[0].confirm(old)


async def test_numbers_go_on_behind_those_of_the_database_when_the_way_of_finding_the_leader_is_changed(
    world: World,
) -> None:
    for _ in range(3):
        assert isinstance(await world.ledgers[0].take("chat", "pod-0", 0.0), Term)
    assert await world.taken(1) == Term("chat", "pod-1", 4)


async def test_whoever_still_leads_by_the_database_alone_is_waited_for(world: World) -> None:
    by_database = await world.ledgers[0].take("chat", "older", 60.0)
    assert isinstance(by_database, Term)
    held = await world.take(1)
    assert isinstance(held, Held)
    assert held.holder == "older"
    await world.ledgers[0].confirm(by_database)
    await world.ledgers[0].resign(by_database)
    assert await world.taken(1) == Term("chat", "pod-1", 3)


async def test_of_two_that_want_it_at_once_one_gets_it(world: World) -> None:
    async def quicker() -> None:
        assert isinstance(await world.take(1), Term)

    world.lease.before_write = quicker
    assert isinstance(await world.take(0), Held)
    assert world.lease.kept
    assert world.lease.kept["spec"]["holderIdentity"] == "pod-1"


async def test_a_label_that_somebody_sets_costs_nobody_the_lease(world: World) -> None:
    term = await world.taken(0)
    assert isinstance(await world.take(1), Held)
    world.wait(3.0)
    world.lease.put({**world.lease.kept, "metadata": {**world.lease.kept["metadata"], "labels": {"a": "b"}}})  # type: ignore[dict-item, index]
    assert await world.take(1) == Held("pod-0", 1.0), "a label is no renewal"
    assert await world.books[0].renew(term, TTL_S)
    assert world.lease.kept
    assert world.lease.kept["metadata"]["labels"] == {"a": "b"}


async def test_whoever_was_asleep_finds_that_it_is_somebody_elses(world: World) -> None:
    old = await world.taken(0)
    assert isinstance(await world.take(1), Held)
    world.wait(60.0)
    await free_in_the_database(world, old)
    await world.taken(1)
    assert not await world.books[0].renew(old, TTL_S)
    assert isinstance(await world.take(0), Held)


async def test_an_earlier_life_of_ours_need_not_be_waited_for_and_is_fenced(world: World) -> None:
    before = await world.taken(0)
    again = await world.taken(0)
    assert again.token == before.token + 1
    with pytest.raises(FencedError):
        await world.books[0].confirm(before)


async def test_one_that_resigns_leaves_no_wait_behind(world: World) -> None:
    term = await world.taken(0)
    assert isinstance(await world.take(1), Held)
    await world.books[0].resign(term)
    assert await world.taken(1) == Term("chat", "pod-1", 2)
    await world.books[0].resign(term)
    assert await world.books[1].renew(Term("chat", "pod-1", 2), TTL_S)


async def test_a_label_that_somebody_sets_keeps_nobody_from_resigning(world: World) -> None:
    term = await world.taken(0)
    assert world.lease.kept
    metadata = world.lease.kept["metadata"]
    world.lease.put({**world.lease.kept, "metadata": {**metadata, "labels": {"a": "b"}}})
    await world.books[0].resign(term)
    assert world.lease.kept["spec"]["holderIdentity"] == ""
    assert world.lease.kept["metadata"]["labels"] == {"a": "b"}


async def test_whoever_resigns_late_leaves_the_next_ones_lease_alone(world: World) -> None:
    before = await world.taken(0)
    assert isinstance(await world.take(1), Held)
    world.wait(TTL_S + 1.0)
    await free_in_the_database(world, before)
    await world.taken(1)
    await world.books[0].resign(before)
    assert world.lease.kept
    assert world.lease.kept["spec"]["holderIdentity"] == "pod-1"


async def test_an_api_server_that_is_gone_renews_nothing_and_confirms_what_the_database_knows(world: World) -> None:
    term = await world.taken(0)
    world.lease.works = False
    for work in (world.books[0].renew(term, TTL_S), world.books[0].take("chat", "pod-0", TTL_S)):
        with pytest.raises(UnreachableError):
            await work
    await world.books[0].confirm(term)


async def test_a_database_that_refuses_begins_no_term_and_the_next_try_has_a_larger_number(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object) -> Term:
        raise StoreError("the database refuses")

    with monkeypatch.context() as patch:
        patch.setattr(world.ledgers[0], "take", refuses)
        with pytest.raises(StoreError):
            await world.take(0)
    assert await world.taken(0) == Term("chat", "pod-0", 2)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("database", None), ("kubernetes:controlplane", LeasePlace("controlplane")),
        ("kubernetes:inference/chat.control", LeasePlace("chat.control", "inference")),
    ],
)  # fmt: skip
def test_the_way_of_finding_the_leader_is_read(text: str, place: LeasePlace | None) -> None:
    assert read_leader(text) == place


@pytest.mark.parametrize("text", ["", "etcd", "kubernetes:", "kubernetes:a/b/c", "kubernetes:Upper", "kubernetes:-a"])
def test_a_way_that_there_is_not_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_leader(text)
    assert "--leader kubernetes:" in refused.value.fix


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseServer]:
    with lease_server() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path)))
        yield running


async def test_the_official_client_creates_replaces_and_is_told_of_conflicts(served: LeaseServer) -> None:
    api = LeaseApi(LeasePlace("controlplane", "inference"))
    assert await api.read() is None
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}, "spec": {"leaseTransitions": 1}}
    made = await api.write(body)
    assert made, served.asked
    assert await api.write(body) is None, "it is there already"
    changed = await api.write({**made, "spec": {"leaseTransitions": 2}})
    assert changed
    assert await api.write({**made, "spec": {"leaseTransitions": 9}}) is None, "an old version"
    assert (await api.read() or {})["spec"] == {"leaseTransitions": 2}
    assert served.asked[0] == "GET /apis/coordination.k8s.io/v1/namespaces/inference/leases/controlplane"


async def test_the_namespace_is_the_kubeconfigs_unless_one_is_named(served: LeaseServer) -> None:
    await LeaseApi(LeasePlace("controlplane")).read()
    assert served.asked == ["GET /apis/coordination.k8s.io/v1/namespaces/from-context/leases/controlplane"]


async def test_a_refusal_names_the_verb_and_the_resource(served: LeaseServer) -> None:
    served.forbidden = True
    with pytest.raises(UnreachableError) as refused:
        await LeaseApi(LeasePlace("controlplane", "inference")).read()
    assert "allow this account to get `leases` of `coordination.k8s.io` in namespace inference" in refused.value.fix
    with pytest.raises(UnreachableError, match="inference/controlplane"):
        await LeaseApi(LeasePlace("controlplane", "inference")).write({"metadata": {"resourceVersion": "1"}})


async def test_a_server_that_accepts_and_never_answers_is_given_up(
    served: LeaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = LeaseApi(LeasePlace("controlplane", "inference"))
    assert await api.read() is None
    served.hangs = True
    with monkeypatch.context() as impatient:
        impatient.setattr("controlplane.runtime.kubernetes_lease.READ_WITHIN_S", 0.1)
        with pytest.raises(UnreachableError):
            await api.read()
    served.hangs = False
    assert await api.read() is None


async def test_a_server_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(UnreachableError) as gone:
        await LeaseApi(LeasePlace("controlplane")).read()
    assert "check the kubeconfig" in gone.value.fix
