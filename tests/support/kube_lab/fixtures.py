"""The lab as pytest fixtures: one API server for all tests of a session, a namespace of their own for each."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.support.kube_lab.hollow import Hollow
from tests.support.kube_lab.lab import Lab, missing

_numbers = count()


@pytest.fixture(scope="session")
def kube_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Run a real Kubernetes control plane (API server, controllers); skips where it is not built."""
    why = missing()
    if why:
        pytest.skip(why)
    with Lab(tmp_path_factory.mktemp("kube-lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def kube_api(kube_lab: Lab) -> Path:
    """Give the administrator's kubeconfig of a real API server."""
    return kube_lab.kubeconfig


@pytest.fixture(scope="session")
def kube_crds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Run a present-day server of custom resources (strict fields, CEL; no pods); skips where it is not built."""
    why = missing(crds=True)
    if why:
        pytest.skip(why)
    with Lab(tmp_path_factory.mktemp("kube-crds"), crds=True) as lab:
        yield lab


@pytest.fixture
def hollow(kube_lab: Lab) -> Hollow:
    """Give what writes nodes and pods into the lab."""
    return Hollow(kube_lab.admin)


@pytest.fixture
def namespace(hollow: Hollow) -> Iterator[str]:
    """Make a namespace for one test; its pods go with it."""
    name = hollow.namespace(f"test-{next(_numbers)}")
    yield name
    hollow.admin.must("DELETE", f"/api/v1/namespaces/{name}/pods?gracePeriodSeconds=0")
    hollow.admin.must("DELETE", f"/api/v1/namespaces/{name}")
