"""`controlplane.yaml` -> `Policy`, or everything that is wrong with it at once, each with `file:line`, why and fix.

The page is laid over `defaults.yaml`, then read type by type. Called by the command line and by wiring.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path as FilePath
from typing import Any, TypeVar

from controlplane.errors import PolicyError, UsageError
from controlplane.fleet.model import CONTROLPLANE_POOL, GATEWAY_POOL, PRIMARY, FleetSpec
from controlplane.policy.degradation import read_condition, read_degradation
from controlplane.policy.drills import read_drills
from controlplane.policy.gateway import check_gateway
from controlplane.policy.model import Objective, Policy, PublishSpec
from controlplane.policy.outbound import check_addresses
from controlplane.policy.page import Page, Path, overlay, parse, spell
from controlplane.policy.publish import check_publish
from controlplane.policy.sources import check_source, check_url
from controlplane.policy.substrate import check_substrate
from controlplane.policy.thresholds import read_thresholds
from controlplane.policy.typed import BAD, Bad, one_of, read, read_list
from controlplane.probes.probe import ProbeSpec
from controlplane.security.outbound import OutboundSpec
from controlplane.signals.engines import AUTO, ENGINES
from controlplane.signals.sample import CATALOGUE

T = TypeVar("T")

RESERVED_POOLS = {
    GATEWAY_POOL: "the gateway itself is watched under that name",
    CONTROLPLANE_POOL: "drills that break the control plane itself name it so",
}
_TOP = ("service", "fleet", "probes", "thresholds", "objectives", "degradation", "drills", "alertmanager", "publish",
        "outbound")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loaded:
    """A policy and the page it came from."""

    policy: Policy
    resolved: Mapping[str, Any]
    """The page with every default filled in, as people write it."""
    path: FilePath

    @property
    def base(self) -> FilePath:
        """The directory that relative paths on the page start from."""
        return self.path.parent


def default_text() -> str:
    """Return the page of defaults, as text."""
    return resources.files("controlplane.policy").joinpath("defaults.yaml").read_text(encoding="utf-8")


def load(path: FilePath) -> Loaded:
    """Read a policy page.

    Raises:
        PolicyError: with every problem on the page.
        UsageError: when there is no such file, or it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(
            f"no policy page at {path}", "the file does not exist", "name the page, or let `controlplane up` write one"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}", str(error), "make it a readable UTF-8 file") from error
    return loads(text, path)


def loads(text: str, path: FilePath) -> Loaded:
    """Read a policy page from its text; `path` is for messages and for relative paths on the page."""
    page = parse(str(path), text)
    if page.problems:
        raise PolicyError(tuple(page.problems))
    if not isinstance(page.data, Mapping):
        page.wrong((), "the page is not a mapping", "its top level must be keys such as `service:`", "see README.md")
        raise PolicyError(tuple(page.problems))
    resolved = overlay(parse("defaults.yaml", default_text()).data, page.data)
    policy = _policy(page, resolved)
    if page.problems or policy is None:
        raise PolicyError(tuple(sorted(page.problems, key=lambda p: int(p.where.rpartition(":")[2]))))
    for row in policy.degradation.not_armed:
        resolved["degradation"].pop(row)
    for level, armed in policy.degradation.rows.items():
        if armed.escalate is None:  # A default that leads to a row which is not armed.
            resolved["degradation"][level].pop("escalate", None)
    in_order = {key: resolved[key] for key in _TOP if key in resolved}
    return Loaded(policy, in_order, path)


def _policy(page: Page, data: Mapping[str, Any]) -> Policy | None:
    page.check_keys(data, (), _TOP)
    service = _required(page, data, "service", str)
    fleet = _fleet(page, data)
    probes = read_list(page, data["probes"], ("probes",), partial(_probe, page))
    thresholds = read_thresholds(page, data["thresholds"])
    objectives = read_list(page, data["objectives"], ("objectives",), partial(read, page, Objective))
    drills = read_drills(page, data["drills"], read_condition)
    alertmanager = _alertmanager(page, data)
    outbound = read(page, OutboundSpec, data.get("outbound", {}), ("outbound",))
    publish = read(page, PublishSpec, data["publish"], ("publish",))
    if isinstance(fleet, FleetSpec):
        degradation = read_degradation(page, data["degradation"], fleet)
        if isinstance(publish, PublishSpec):
            check_publish(page, publish, degradation.receivers, check_url)
        if not page.problems and not isinstance(service, Bad):
            policy = Policy(
                service, fleet, probes, thresholds, objectives, degradation, drills, publish, alertmanager, outbound
            )
            check_addresses(page, data, outbound, policy.fleet_hosts)
            return policy
    return None


def _alertmanager(page: Page, data: Mapping[str, Any]) -> str:
    """Return the Alertmanager's address without a slash at its end; an empty string when the page names none."""
    given = read(page, str, data["alertmanager"], ("alertmanager",)) if "alertmanager" in data else ""
    if not isinstance(given, str) or not given:
        return ""
    check_url(page, given, ("alertmanager",))
    return given.rstrip("/")


def _required(page: Page, data: Mapping[str, Any], key: str, kind: type[T]) -> T | Bad:
    if key in data:
        value: T | Bad = read(page, kind, data[key], (key,))
        return value
    page.wrong((), f"`{key}` is missing", "a page needs at least `service` and `fleet`", f"add `{key}:`")
    return BAD


def _fleet(page: Page, data: Mapping[str, Any]) -> FleetSpec | Bad:
    fleet = _required(page, data, "fleet", FleetSpec)
    if not isinstance(fleet, FleetSpec):
        return BAD
    if PRIMARY not in fleet.pools:
        page.wrong(
            ("fleet", "pools"), "missing pool `primary`", "every service has a pool that normally serves it",
            "add `primary: { endpoints: { static: [...] } }`",
        )  # fmt: skip
    if fleet.engine not in (AUTO, *ENGINES):
        page.wrong(
            ("fleet", "engine"), f"unknown engine `{fleet.engine}`", "its metric names are not known",
            f"one of: {', '.join((AUTO, *ENGINES))}",
        )  # fmt: skip
    if fleet.substrate:
        check_substrate(page, fleet.substrate)
    for reserved, why in RESERVED_POOLS.items():
        if reserved in fleet.pools:
            page.wrong(
                ("fleet", "pools", reserved),
                f"a pool may not be called `{reserved}`",
                why,
                "give the pool another name",
            )
    if fleet.gateway:
        check_gateway(page, fleet.gateway, dict(fleet.pools))
    for name, pool in fleet.pools.items():
        check_source(page, pool.endpoints, ("fleet", "pools", name, "endpoints"))
    return fleet


def _probe(page: Page, node: Any, path: Path) -> ProbeSpec | Bad:
    spec: ProbeSpec | Bad = one_of(page, ProbeSpec, node, path)
    if isinstance(spec, ProbeSpec) and spec.promql:
        here = (*path, "promql", "queries")
        page.check_keys(spec.promql.queries, here, tuple(CATALOGUE))
        if not spec.promql.queries:
            page.wrong(here, f"`{spell(here)}` is empty", "nothing would be asked", "name a signal and its expression")
        check_url(page, spec.promql.url, (*path, "promql", "url"))
    if isinstance(spec, ProbeSpec) and spec.events:
        check_url(page, spec.events.api, (*path, "events", "api"))
    for kind, at in (("host", spec.host), ("gpu", spec.gpu)) if isinstance(spec, ProbeSpec) else ():
        if at and at.page:
            check_url(page, at.page, (*path, kind, "page"))
    return spec
