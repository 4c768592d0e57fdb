"""A few cells of the crash-point matrix; `make bench ONLY=crash-matrix` goes through all of it."""

import os
from collections.abc import Iterator

import pytest

from bench.crash_matrix import WHENS, WHOS, WRITES, Case, cases, experiment, run_case
from bench.fleet import running_fleet
from controlplane.chaos.experiment import read
from controlplane.chaos.fault import FaultKind
from controlplane.chaos.substrates.registry import DRIVERS
from tests.support.processes import Fleet

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("matrix") / "run") as fleet:
        yield fleet


@pytest.mark.parametrize(
    "case",
    [
        Case("process", FaultKind.NODE_KILL, "intend", "after", "both"),
        Case("process", FaultKind.NODE_KILL, "injected", "before", "plane"),
        Case("process", FaultKind.NETWORK_PARTITION, "injected", "before", "both"),
        Case("process", FaultKind.NETWORK_PARTITION, "proven", "after", "child"),
        Case("process", FaultKind.STALLED_ENGINE, "proven", "before", "plane"),
    ],
    ids=str,
)
def test_a_crash_leaves_nothing_once_the_lease_has_run_out(fleet: Fleet, case: Case) -> None:
    result = run_case(fleet.run_dir, case)
    assert result.left == ()
    assert result.reached
    assert result.leases == 1
    assert result.crashed == (case.who != "child")


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_a_crash_leaves_nothing_in_a_network_namespace() -> None:
    with running_fleet("--netns") as run_dir:
        for write, when, who in (("injected", "before", "both"), ("proven", "after", "plane")):
            result = run_case(run_dir, Case("netns", FaultKind.NETWORK_PARTITION, write, when, who))
            assert (result.left, result.leases, result.reached) == ((), 1, True)


def test_every_kind_there_is_has_its_cells() -> None:
    of_a_cluster_alone = {FaultKind.POD_EVICTION}  # Nothing of ours keeps it up; crashes around it: test_kube_faults.
    for substrate, kinds in DRIVERS.items():
        assert set(kinds) == set(FaultKind) - of_a_cluster_alone
        assert len(list(cases(substrate, kinds))) == len(kinds) * len(WRITES) * len(WHENS) * len(WHOS)
    for kind in FaultKind:
        found, problems = read("crash", experiment(kind))
        assert problems == (), kind
        assert found is not None
