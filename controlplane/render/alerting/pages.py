"""Every page under `alerts/`, by its path; pure. Called by `artefacts`."""

from collections.abc import Iterator, Mapping, Sequence

from controlplane.policy.model import Policy
from controlplane.policy.quantity import spell_duration
from controlplane.render.alerting import alertmanager, collecting, detection, rules, unit_tests
from controlplane.render.alerting.rules import Group, Links
from controlplane.render.wording import inert, slug


def pages(policy: Policy, groups: Sequence[Group], header: str, dashboard: str) -> Mapping[str, str]:
    """Return the rules and everything that stands beside them.

    Args:
        policy: what they were made from.
        groups: the rules.
        header: says where the pages come from.
        dashboard: path of the service's dashboard in Grafana.
    """
    links = Links(f"{policy.publish.grafana.rstrip('/')}{dashboard}", policy.publish.runbooks)
    return {f"alerts/{name}": text for name, text in _pages(policy, groups, header, links)}


def _pages(policy: Policy, groups: Sequence[Group], header: str, links: Links) -> Iterator[tuple[str, str]]:
    name, service = slug(policy.service), inert(policy.service)
    rule_file = f"{name}.rules.yml"
    yield rule_file, rules.page(_about_rules(header, policy, groups), tuple(groups), policy.service, links)
    about = f"{header}\n\nUnit tests of alerts in {rule_file}: each is silent, fires, and resolves.\n"
    yield from unit_tests.pages(about, groups, policy.service, links, rule_file, name)
    about = (
        f"{header}\n\nAlertmanager's configuration for service {service}: routes by severity and level, and what is\n"
        "silent while something worse fires. The token file lies on Alertmanager's machine.\n"
    )
    yield "alertmanager.yml", alertmanager.page(policy, about)
    about = (
        f"{header}\n\nA Prometheus for service {service} alone: what it scrapes, and the rules it evaluates. GPUs are\n"
        "told by dcgm-exporter, node by node: add its targets with the label `pool`.\n"
    )
    yield "prometheus.yml", collecting.prometheus(policy, about, rule_file)
    about = f"{header}\n\nThe same for the Prometheus operator. Services of engines carry the label `pool`.\n"
    yield from collecting.operator(policy, about, tuple(groups), links)


def _about_rules(header: str, policy: Policy, groups: Sequence[Group]) -> str:
    ways = detection.table(detection.detections(policy, groups))
    budget = "\n\nFrom the harm to whoever is told, at worst, against what the row promises:\n\n" if ways else ""
    return (
        f"{header}\n\n"
        f"Alerting rules of service {inert(policy.service)}.\n"
        f"Scrape the control plane and the engines every {spell_duration(policy.publish.scrape)} or faster.\n"
        "Engine series need the label `pool`; `file_sd` lists carry it. Add the label `service` where one Prometheus\n"
        "scrapes several services. A `warn` goes on while its `breach` fires: inhibit it by service, pool and signal."
        f"{budget}" + "\n".join(f"  {line}" for line in ways)
    )
