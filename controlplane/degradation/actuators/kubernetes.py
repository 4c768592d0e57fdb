"""Kubernetes: route objects as a traffic lever, and replicas and autoscalers as an errand.

Rules are applied server-side under a field manager of our own. They are one atomic field, so somebody else's ownership
of them is a conflict that the API server reports by name: it is refused, unless the page says to take them over.
"""

from collections.abc import Mapping
from functools import partial

from controlplane.degradation.action import Errand, Scale
from controlplane.degradation.actuator import Observed, Preflight, RoutePlan
from controlplane.degradation.actuators.cluster import FIELD_MANAGER, Cluster, Document, Kind, RefusedError, anew
from controlplane.degradation.actuators.route_documents import ROUTES, observed_in, planned_rules, refusal_of
from controlplane.degradation.actuators.sample import Sampler
from controlplane.degradation.errand import wrong_with_scale
from controlplane.errors import ActuatorError
from controlplane.fleet.model import KubernetesSpec

WORKLOADS = {
    "deployment": Kind("apps", "v1", "deployments"),
    "statefulset": Kind("apps", "v1", "statefulsets"),
}
OWNERS = {"deployment": "Deployment", "statefulset": "StatefulSet"}
AUTOSCALERS = (
    Kind("autoscaling", "v2", "horizontalpodautoscalers"),
    Kind("autoscaling", "v1", "horizontalpodautoscalers"),
)
"""The bounds are called the same in both; clusters before 1.23 have the second only."""


class KubernetesActuator:
    """The lever of one service behind one `VirtualService` or `HTTPRoute`."""

    def __init__(self, cluster: Cluster, spec: KubernetesSpec, pools: tuple[str, ...], sampler: Sampler) -> None:
        """Take the lever.

        Args:
            cluster: where the object is.
            spec: which object it is, and what the pools' backends are called.
            pools: every pool of the fleet.
            sampler: sends real requests to the service's listener.
        """
        self._cluster = cluster
        self._spec = spec
        self._route = ROUTES[spec.kind]
        self._kind = Kind(self._route.group, self._route.version, self._route.plural)
        self._pools = {pool: spec.backends.get(pool, pool) for pool in pools}
        self._sampler = sampler

    @property
    def _called(self) -> str:
        return f"{self._route.kind} {self._spec.namespace}/{self._spec.name}"

    async def preflight(self, plan: RoutePlan) -> Preflight:
        """Ask the API server to apply the plan without keeping it (`dryRun=All`), and say what would change."""
        try:
            live = await self.configured()
            after = observed_in(await self._apply(plan, dry_run=True), self._route, self._pools)
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        return Preflight(
            preview=f"{self._called}: weights {dict(live.weights)} -> {dict(after.weights)}, "
            f"level {live.level or 'unset'} -> {after.level}"
        )

    async def apply(self, plan: RoutePlan, key: str) -> None:  # noqa: ARG002 - the object itself says what is applied
        """Apply the plan's rules server-side.

        Raises:
            ActuatorError: when they belong to somebody else, name a pool the rules lack, or cannot be applied.
        """
        await self._apply(plan, dry_run=False)

    async def _apply(self, plan: RoutePlan, *, dry_run: bool) -> Document:
        async def once() -> Document:
            # The version we read goes with what we apply: a rule that somebody changed meanwhile is not undone.
            body = self._body(await self._read(), plan)
            return await self._cluster.apply(
                self._kind, self._spec.namespace, self._spec.name, body, force=self._spec.take_over, dry_run=dry_run
            )

        try:
            return await anew(once)
        except RefusedError as refused:
            raise self._error(refused) from refused

    def _body(self, found: Document, plan: RoutePlan) -> Document:
        cannot = refusal_of(plan)
        if cannot:
            raise ActuatorError(f"{self._called} cannot take the plan", cannot, "take that action out of the row")
        try:
            rules = planned_rules(found, self._route, self._pools, plan)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ActuatorError(
                f"{self._called} cannot take the plan", str(error).strip("'\""),
                "give its rules a backend for every pool (weight 0 will do), or name them under `backends`",
            ) from error  # fmt: skip
        return {
            "apiVersion": f"{self._route.group}/{self._route.version}",
            "kind": self._route.kind,
            "metadata": {
                "name": self._spec.name,
                "namespace": self._spec.namespace,
                "resourceVersion": found["metadata"]["resourceVersion"],
            },
            "spec": {self._route.rules: rules},
        }

    async def configured(self) -> Observed:
        """Read the split back from the object, with what its gateway has against it.

        Raises:
            ActuatorError: when it cannot be read.
        """
        return observed_in(await self._read(), self._route, self._pools)

    async def sample(self, requests: int) -> Observed:
        """Read the object, then send real requests to the listener: the level they carry is the data plane's word."""
        return await self._sampler.sample(await self.configured(), requests)

    async def _read(self) -> Document:
        try:
            return await self._cluster.read(self._kind, self._spec.namespace, self._spec.name)
        except RefusedError as refused:
            raise self._error(refused) from refused

    def _error(self, refused: RefusedError) -> ActuatorError:
        if refused.owners:
            return ActuatorError(
                f"the rules of {self._called} belong to {', '.join(refused.owners)}", refused.message,
                f"let it leave `spec.{self._route.rules}` alone, or write `take_over: true` under "
                "`fleet.gateway.kubernetes`",
            )  # fmt: skip
        return refused_error(self._called, refused)


class ScaleHand:
    """Changes replicas and autoscalers' bounds, and puts back what was."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def preflight(self, errand: Errand) -> Preflight:
        """Try the change without keeping it, and remember what is."""
        try:
            scale = _scale(errand)
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        try:
            before = await self._now(scale)
            if _what(scale) in WORKLOADS and (other := await self._autoscaler(scale)):
                return Preflight(f"autoscaler {other} would put the replicas back: scale `hpa/{other}`")
            await anew(partial(self._set, scale, _wanted(scale), dry_run=True))
        except (ActuatorError, RefusedError) as error:
            shown = refused_error(_called(scale), error) if isinstance(error, RefusedError) else error
            return Preflight(f"{shown.what}: {shown.why}")
        return Preflight(preview=f"{_called(scale)}: {_spell(before)} -> {_spell(_wanted(scale))}", before=before)

    async def apply(self, errand: Errand, key: str) -> str:  # noqa: ARG002 - a count is set as often as one likes
        """Set the counts.

        Raises:
            ActuatorError: when the API server refuses, or cannot be asked.
        """
        scale = _scale(errand)
        try:
            await anew(partial(self._set, scale, _wanted(scale), dry_run=False))
        except RefusedError as refused:
            raise refused_error(_called(scale), refused) from refused
        return f"{_called(scale)}: {_spell(_wanted(scale))}"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:  # noqa: ARG002
        """Put back what was; what somebody has changed since is left as it is, and so is what is gone.

        Raises:
            ActuatorError: when the API server refuses, or cannot be asked, or nothing is known of what was.
        """
        scale = _scale(errand)
        was = {name: int(count) for name, count in before.items() if count is not None}
        if not was:
            raise ActuatorError(f"cannot put {_called(scale)} back", "what was is not on record", "scale it by hand")
        try:
            return await anew(partial(self._put_back, scale, was))
        except RefusedError as refused:
            if refused.status == 404 and not refused.no_such_api:
                return f"{_called(scale)}: gone"
            raise refused_error(_called(scale), refused) from refused

    async def _put_back(self, scale: Scale, was: Mapping[str, int]) -> str:
        now = await self._now(scale)
        if now == was:
            return f"{_called(scale)}: {_spell(was)} already"
        if any(now.get(name) != count for name, count in _wanted(scale).items()):
            return f"{_called(scale)}: left at {_spell(now)}, which somebody else has set since"
        await self._set(scale, was, dry_run=False)
        return f"{_called(scale)}: {_spell(was)} again"

    async def observe(self, errand: Errand, key: str, done: str) -> str:  # noqa: ARG002 - it looks itself
        """Read the counts back, once a workload's controller has seen them, and say how many replicas are ready.

        Pods are not waited for: an engine loads for minutes, and a row that is undone before would never see one.
        """
        scale = _scale(errand)
        wanted = _wanted(scale)
        try:
            now = await self._now(scale)
            if any(now.get(name) != count for name, count in wanted.items()):
                return ""
            if _what(scale) not in WORKLOADS:
                count = int(((await self._hpa(scale)).get("status") or {}).get("currentReplicas") or 0)
                return f"{_called(scale)}: {_spell(wanted)}, {count} replicas now"
            found = await self._cluster.read(WORKLOADS[_what(scale)], scale.namespace, _name(scale))
        except RefusedError as refused:
            raise refused_error(_called(scale), refused) from refused
        status = found.get("status") or {}
        if int(status.get("observedGeneration", 0)) < int(found["metadata"].get("generation", 0)):
            return ""
        return f"{_called(scale)}: {int(status.get('readyReplicas') or 0)} of {wanted['replicas']} replicas ready"

    async def _now(self, scale: Scale) -> dict[str, int]:
        if _what(scale) in WORKLOADS:
            found = await self._cluster.read_scale(WORKLOADS[_what(scale)], scale.namespace, _name(scale))
            return {"replicas": int(found["spec"].get("replicas", 0))}
        spec = (await self._hpa(scale))["spec"]
        return {"min": int(spec.get("minReplicas", 1)), "max": int(spec["maxReplicas"])}

    async def _set(self, scale: Scale, counts: Mapping[str, int], *, dry_run: bool) -> None:
        if _what(scale) in WORKLOADS:
            kind, body = WORKLOADS[_what(scale)], {"spec": {"replicas": counts["replicas"]}}
            await self._cluster.merge(kind, scale.namespace, _name(scale), body, scale=True, dry_run=dry_run)
            return
        newest, old = AUTOSCALERS
        try:
            await self._bound(newest, scale, counts, dry_run=dry_run)
        except RefusedError as refused:
            if not refused.no_such_api:
                raise
            await self._bound(old, scale, counts, dry_run=dry_run)

    async def _bound(self, kind: Kind, scale: Scale, counts: Mapping[str, int], *, dry_run: bool) -> None:
        """Apply an autoscaler's bounds server-side; those of somebody else are a conflict."""
        found = await self._cluster.read(kind, scale.namespace, _name(scale))
        names = {"min": "minReplicas", "max": "maxReplicas"}
        body: Document = {
            "apiVersion": kind.api_version,
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": _name(scale), "resourceVersion": found["metadata"]["resourceVersion"]},
            "spec": {names[name]: count for name, count in counts.items()},
        }
        await self._cluster.apply(kind, scale.namespace, _name(scale), body, force=scale.take_over, dry_run=dry_run)

    async def _hpa(self, scale: Scale) -> Document:
        try:
            return await self._cluster.read(AUTOSCALERS[0], scale.namespace, _name(scale))
        except RefusedError as refused:
            if not refused.no_such_api:
                raise
        return await self._cluster.read(AUTOSCALERS[1], scale.namespace, _name(scale))

    async def _autoscaler(self, scale: Scale) -> str:
        """Return the autoscaler that rules a deployment; empty when there is none, or they may not be listed."""
        for kind in AUTOSCALERS:
            try:
                found = await self._cluster.every(kind, scale.namespace)
            except RefusedError:
                continue
            for one in found:
                target = one["spec"].get("scaleTargetRef", {})
                if (target.get("kind"), target.get("name")) == (OWNERS[_what(scale)], _name(scale)):
                    return str(one["metadata"]["name"])
            return ""
        return ""


def _scale(errand: Errand) -> Scale:
    if not isinstance(errand, Scale):
        raise TypeError(f"not a scale errand: {errand}")
    wrong = wrong_with_scale(errand)
    if wrong:
        raise ActuatorError(f"cannot scale {errand.target}", wrong, "mend the row's `scale`")
    return errand


def _what(scale: Scale) -> str:
    return scale.target.partition("/")[0]


def _name(scale: Scale) -> str:
    return scale.target.partition("/")[2]


def _called(scale: Scale) -> str:
    return f"{_what(scale)} {scale.namespace}/{_name(scale)}"


def _wanted(scale: Scale) -> dict[str, int]:
    asked = {"replicas": scale.replicas, "min": scale.min, "max": scale.max}
    return {name: count for name, count in asked.items() if count is not None}


def _spell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def refused_error(what: str, refused: RefusedError) -> ActuatorError:
    """Say of a refusal what was refused, why, who owns it or what this account lacks, and the way out."""
    if refused.owners:
        return ActuatorError(
            f"{what} belongs to {', '.join(refused.owners)}", refused.message,
            "let them leave it alone, or say `take_over: true` where the page names it",
        )  # fmt: skip
    fix = {
        403: f"allow this process's account to {refused.asked} (field manager `{FIELD_MANAGER}`)",
        404: "create it, or mend its name and namespace on the page",
        422: "mend the object: the API server's schema refuses it",
    }.get(refused.status, "see the API server's answer")
    said = f"{refused.status} {refused.denied or refused.message}"
    return ActuatorError(f"{what} was refused by the API server", said, fix)
