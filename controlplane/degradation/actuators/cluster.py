"""An API server as levers and hands ask it: one that cannot be asked is a lever that does not move."""

from controlplane.errors import ActuatorError
from controlplane.fleet import cluster
from controlplane.fleet.cluster import FIELD_MANAGER, Document, Kind, RefusedError, anew

__all__ = ["FIELD_MANAGER", "Cluster", "Document", "Kind", "RefusedError", "anew"]


class Cluster(cluster.Cluster):
    """One API server; raises `ActuatorError` when it cannot be asked."""

    def __init__(self, kubeconfig: str = "", context: str = "") -> None:
        super().__init__(kubeconfig, context, ActuatorError)
