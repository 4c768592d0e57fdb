"""The page's `publish`: what is wrong with where rendered files go and how alerts travel. Called by `load`."""

from collections.abc import Callable, Mapping
from datetime import timedelta

from controlplane.degradation.errand import ReceiverSpec
from controlplane.policy.model import PublishSpec
from controlplane.policy.page import Page, Path, spell
from controlplane.policy.quantity import spell_duration

SEVERITIES = ("critical", "warning", "info")
"""Whose alerts people may be told of; `none` is for machines."""

_PATH: Path = ("publish",)
_LEAST = timedelta(seconds=1)


def check_publish(
    page: Page, spec: PublishSpec, receivers: Mapping[str, ReceiverSpec], check_url: Callable[[Page, str, Path], None]
) -> None:
    """Note what cannot be: a pace that is none, an address that is none, a receiver that Alertmanager cannot reach.

    Args:
        page: collects what is wrong.
        spec: what was read.
        receivers: those of `degradation.receivers`, by name.
        check_url: notes a problem with an address.
    """
    for key, pace in (("scrape", spec.scrape), ("evaluation", spec.evaluation)):
        if pace < _LEAST or pace % _LEAST:
            here = (*_PATH, key)
            page.wrong(
                here, f"`{spell(here)}: {spell_duration(pace)}` is no pace",
                "Prometheus scrapes and evaluates every whole number of seconds", "write one such as `5s`",
            )  # fmt: skip
    check_url(page, spec.control, (*_PATH, "control"))
    for key, base in (("grafana", spec.grafana), ("runbooks", spec.runbooks)):
        if base:
            check_url(page, base, (*_PATH, key))
    page.check_keys(spec.notify, (*_PATH, "notify"), SEVERITIES)
    for severity, name in spec.notify.items():
        if severity not in SEVERITIES:
            continue
        why = _unreachable(receivers.get(name))
        if why:
            here = (*_PATH, "notify", severity)
            page.wrong(
                here, f"`{spell(here)}: {name}` cannot be told by Alertmanager", why,
                "name one of `degradation.receivers` with a `webhook: http://...` or a `slack: file:PATH`",
            )  # fmt: skip


def _unreachable(spec: ReceiverSpec | None) -> str:
    """Return why Alertmanager cannot tell a receiver, or an empty text."""
    if spec is None:
        return "no receiver has that name"
    if spec.alertmanager:
        return "it is an Alertmanager itself"
    if spec.slack and not spec.slack.startswith("file:"):
        return "Alertmanager reads secrets from files, not from the environment"
    if spec.webhook and not spec.webhook.startswith(("http://", "https://")):
        return "Alertmanager must be given the address itself"
    if spec.token and not spec.token.startswith("file:"):
        return "Alertmanager reads secrets from files, not from the environment"
    return ""
