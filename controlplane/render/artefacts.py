"""Everything that is rendered from one policy page: relative path -> text, byte for byte the same each time; pure.

Called by the command line and by the flow that publishes; they write, compare and keep the notes that people made
(`keep`). Nothing here touches a file or a clock.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from controlplane.chaos.drill import Drill
from controlplane.incidents.incident import Incident
from controlplane.policy.model import Policy
from controlplane.render.alerting import pages as alerting
from controlplane.render.alerting.groups import groups as groups_of
from controlplane.render.dashboards import collection
from controlplane.render.runbooks import book
from controlplane.render.runbooks.rows import Evidence
from controlplane.render.runbooks.shelf import keep
from controlplane.render.runbooks.subject import Subject, subjects
from controlplane.render.wording import inert, slug

__all__ = ["Evidence", "dashboard_of", "described", "keep", "render"]


def render(
    policy: Policy, drills: Sequence[Drill], source: str, incidents: Sequence[Incident] = ()
) -> Mapping[str, str]:
    """Render all alerts, dashboards and runbooks of one service.

    Args:
        policy: what everything is made from.
        drills: the evidence, newest first.
        source: the policy page as it is to be named in the files, such as `controlplane.yaml`.
        incidents: what has really happened, newest first.

    Returns:
        The text of each file by its path, relative to the directory that `publish.dir` names; paths in order.
    """
    header = f"rendered from {inert(source)} by `controlplane render`; edit {inert(source)}"
    groups = groups_of(policy)
    rules_path = f"alerts/{slug(policy.service)}.rules.yml"
    link = dashboard_of(policy)
    made = {
        **alerting.pages(policy, groups, header, link),
        **collection.pages(policy, header),
        **book.pages(policy, Evidence(tuple(drills), tuple(incidents)), groups, source, rules_path, link),
    }
    return dict(sorted(made.items()))


def dashboard_of(policy: Policy) -> str:
    """Return the path of the service's dashboard on the Grafana server."""
    return f"/d/{collection.OVERVIEW_UID}?var-service={quote(policy.service, safe='')}"


def described(policy: Policy) -> Mapping[str, Subject]:
    """Return what every runbook is about, by its name."""
    return subjects(policy, groups_of(policy))
