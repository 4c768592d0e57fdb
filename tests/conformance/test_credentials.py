"""Credentials that end are read anew once they are renewed in their files, by everybody who asks an API server."""

from pathlib import Path

import pytest

from controlplane.errors import UnreachableError
from controlplane.fleet.cluster import PODS, Cluster, RefusedError
from controlplane.runtime.kubernetes_lease import LeaseApi
from controlplane.settings import LeasePlace
from tests.support.kube_lab.lab import Lab
from tests.support.kube_lab.pki import DAYS, EXPIRED

pytestmark = [pytest.mark.journey, pytest.mark.usefixtures("patient_lease")]


def issued(lab: Lab, days: int) -> Path:
    """Write the kubeconfig of somebody, and the certificate that it names, over what was there."""
    return lab.account("renewed", "/O=system:masters/CN=renewed", days)


async def test_levers_and_faults_take_a_renewed_certificate(kube_lab: Lab, namespace: str) -> None:
    cluster = Cluster(str(issued(kube_lab, EXPIRED)))
    for _ in range(2):
        with pytest.raises(RefusedError) as refused:
            await cluster.every(PODS, namespace)
        assert refused.value.status == 401
    issued(kube_lab, DAYS)
    assert await cluster.every(PODS, namespace) == []


async def test_whoever_leads_takes_a_renewed_certificate(
    kube_lab: Lab, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(issued(kube_lab, EXPIRED)))
    lease = LeaseApi(LeasePlace("controlplane", namespace))
    for _ in range(2):
        with pytest.raises(UnreachableError, match="refuses the Lease"):
            await lease.read()
    issued(kube_lab, DAYS)
    assert await lease.read() is None
