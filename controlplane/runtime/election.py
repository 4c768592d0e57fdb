"""Which way the one in charge is found: a lease in the database, or a Lease of Kubernetes. Called by `wiring`."""

from controlplane.runtime.kubernetes_lease import KubernetesTerms, LeaseApi
from controlplane.runtime.leader import TTL_S, TURN_EVERY_S, Leadership, TermBook, holder_name
from controlplane.settings import ServeSettings
from controlplane.store.database import Database
from controlplane.store.leader import StoredTerms
from controlplane.telemetry import Metrics

KUBERNETES_LOOK_EVERY_S = 0.5
"""A Lease is seen to be renewed only by looking: how much later than its end it is taken over at most."""


def leadership_of(settings: ServeSettings, service: str, database: Database, metrics: Metrics) -> Leadership:
    """Return a control plane's share in the lease of a service."""
    terms, holder = StoredTerms(database), holder_name(settings.state_dir)
    book: TermBook = terms
    look_every_s = TURN_EVERY_S
    if settings.lease:
        book = KubernetesTerms(LeaseApi(settings.lease), terms)
        look_every_s = KUBERNETES_LOOK_EVERY_S
    return Leadership(book, service, holder, metrics, TTL_S, look_every_s)
