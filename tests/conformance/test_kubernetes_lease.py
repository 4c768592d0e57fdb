"""The Lease at a real API server: conflicts, refusals that name verb and resource, and a server that goes and comes."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from controlplane.degradation.fencing import Held, Term
from controlplane.errors import FencedError, UnreachableError
from controlplane.runtime.kubernetes_lease import KubernetesTerms, LeaseApi
from controlplane.runtime.leader import Leadership
from controlplane.settings import LeasePlace
from controlplane.store.database import Database, open_database, sqlite_url
from controlplane.store.leader import StoredTerms
from controlplane.telemetry import Metrics
from tests.support.kube_lab.lab import Lab
from tests.support.processes import until

pytestmark = [pytest.mark.journey, pytest.mark.usefixtures("patient_lease")]

TTL_S = 1.0
RULES = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    url = sqlite_url(tmp_path / "state.db")
    with closing(open_database(url)) as first, closing(open_database(url)) as second:
        yield first, second


@pytest.fixture
def terms(
    kube_lab: Lab, namespace: str, databases: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> tuple[KubernetesTerms, KubernetesTerms]:
    """Give two replicas whose account may do no more than it must."""
    monkeypatch.setenv("KUBECONFIG", str(kube_lab.service_account("replica", namespace, RULES)))
    first, second = (
        KubernetesTerms(LeaseApi(LeasePlace("controlplane", namespace)), StoredTerms(database))
        for database in databases
    )
    return first, second


async def test_one_leads_another_waits_for_as_long_as_it_holds_and_takes_over_with_a_larger_number(
    terms: tuple[KubernetesTerms, KubernetesTerms],
) -> None:
    ours, theirs = terms
    old = await ours.take("chat", "pod-0", TTL_S)
    assert old == Term("chat", "pod-0", 1)
    assert await ours.renew(old, TTL_S)
    since = monotonic()
    assert await theirs.take("chat", "pod-1", TTL_S) == Held("pod-0", TTL_S)
    new: Term | Held = Held("", 0.0)
    while isinstance(new, Held):
        assert monotonic() - since < 30
        new = await theirs.take("chat", "pod-1", TTL_S)
    assert monotonic() - since >= TTL_S
    assert new.token > old.token
    with pytest.raises(FencedError):
        await ours.confirm(old)
    assert not await ours.renew(old, TTL_S)
    await theirs.resign(new)
    again = await ours.take("chat", "pod-0", TTL_S)
    assert isinstance(again, Term)
    assert again.token > new.token


async def test_a_label_is_no_reason_to_lose_it(
    kube_lab: Lab, namespace: str, terms: tuple[KubernetesTerms, KubernetesTerms]
) -> None:
    ours, _ = terms
    term = await ours.take("chat", "pod-0", TTL_S)
    assert isinstance(term, Term)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/controlplane"
    found = kube_lab.admin.must("GET", path)
    found["metadata"]["labels"] = {"team": "ml"}
    kube_lab.admin.must("PUT", path, found)
    assert await ours.renew(term, TTL_S)
    assert kube_lab.admin.must("GET", path)["metadata"]["labels"] == {"team": "ml"}


async def test_an_account_that_may_only_look_is_told_what_it_may_not(
    kube_lab: Lab, namespace: str, databases: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{**RULES[0], "verbs": ["get"]}]
    monkeypatch.setenv("KUBECONFIG", str(kube_lab.service_account("looker", namespace, rules)))
    terms = KubernetesTerms(LeaseApi(LeasePlace("controlplane", namespace)), StoredTerms(databases[0]))
    with pytest.raises(UnreachableError) as refused:
        await terms.take("chat", "pod-0", TTL_S)
    assert f"allow this account to create `leases` of `coordination.k8s.io` in namespace {namespace}" in (
        refused.value.fix
    )
    assert "403" in refused.value.why


async def test_a_server_that_is_gone_ends_a_term_by_our_own_clock_and_one_that_is_back_begins_another(
    kube_lab: Lab, terms: tuple[KubernetesTerms, KubernetesTerms]
) -> None:
    leadership = Leadership(terms[0], "chat", "pod-0", Metrics(), ttl_s=3.0)
    await in_charge(leadership)
    kube_lab.kill_api()
    try:
        began = monotonic()
        await leadership.turn()
        assert monotonic() - began < 20, "an answer was not waited for without an end"
        until(lambda: leadership.term is None, 10, "the term is over")
        with pytest.raises(FencedError):
            await leadership.confirm()
    finally:
        kube_lab.start_api()
    await in_charge(leadership)
    await leadership.resign()


async def in_charge(leadership: Leadership) -> None:
    """Take turns until the lease is ours: on a slow machine a turn may take longer than the lease holds."""
    async with asyncio.timeout(30):
        while leadership.term is None:
            await leadership.turn()
