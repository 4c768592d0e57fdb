"""Every dashboard of a policy, and what hands them to a Grafana: path -> text; pure. Called by `artefacts`."""

from collections.abc import Callable, Mapping

from controlplane.policy.model import Policy
from controlplane.render.dashboards import degradation, detail, drills, overview, plane, provisioning, sanitize
from controlplane.render.dashboards.board import Board, finished

OVERVIEW_UID = overview.UID
"""Where alerts lead."""

BOARDS: Mapping[str, Callable[[Policy], Board]] = {
    "fleet-overview": overview.board,
    "endpoint-detail": detail.board,
    "degradation": degradation.board,
    "drills": drills.board,
    "control-plane": plane.board,
}
"""By file name, without its ending."""

FOLDER = "dashboards"


def pages(policy: Policy, header: str) -> Mapping[str, str]:
    """Return the files of `dashboards/`, by path.

    Args:
        policy: whose thresholds, rows and pools the panels show.
        header: who made the files and what to edit instead.
    """
    made = {name: finished(board(policy), header) for name, board in BOARDS.items()}
    return {
        **{f"{FOLDER}/{name}.json": sanitize.text(dashboard) for name, dashboard in made.items()},
        f"{FOLDER}/provisioning/dashboards.yaml": provisioning.provider(header),
        f"{FOLDER}/provisioning/datasource.yaml": provisioning.source(header),
        f"{FOLDER}/provisioning/configmaps.yaml": provisioning.config_maps(made, header),
        f"{FOLDER}/provisioning/kustomization.yaml": provisioning.kustomization(header),
    }
