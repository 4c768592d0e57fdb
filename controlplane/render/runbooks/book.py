"""The runbooks of one policy: a page for every armed row, one for every alert, and the index; pure.

Called by `artefacts`.
"""

from collections.abc import Mapping, Sequence

from controlplane.policy.model import Policy
from controlplane.render.alerting.rules import Group
from controlplane.render.runbooks.alerts import INDEX, alert_page, index_page, page_of, ringing, rows_of
from controlplane.render.runbooks.place import place_of
from controlplane.render.runbooks.rows import Evidence, row_page
from controlplane.render.wording import page_name


def pages(
    policy: Policy, evidence: Evidence, groups: Sequence[Group], source: str, rules: str, dashboard: str
) -> Mapping[str, str]:
    """Return every runbook of one policy by path.

    Args:
        policy: what the pages are made from.
        evidence: what drills and incidents have shown, newest first.
        groups: the alerts that lead to the pages.
        source: the policy page's name, as it is written at the top of each page.
        rules: path of the rule file the alerts stand in.
        dashboard: path of the fleet's dashboard on the Grafana server.
    """
    place, alerts = place_of(policy, source, dashboard), ringing(groups)
    made = {}
    for row in rows_of(policy):
        leading = [a.name for a in alerts if any(one.level == row.level for one in a.alerts)]
        made[f"runbooks/{page_name(row)}.md"] = row_page(policy, row, evidence, place, leading)
    for alert in alerts:
        made[page_of(alert.name)] = alert_page(policy, alert, evidence, place)
    made[INDEX] = index_page(policy, groups, rules, evidence, place)
    return made
