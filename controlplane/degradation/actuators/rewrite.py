"""Rewriting models at an inference gateway: an `InferenceModelRewrite` as an errand.

Its rules are one field. Ours is put before the others, and taken out again; rules that belong to somebody else are a
conflict of owners, which is refused.
"""

from collections.abc import Mapping
from functools import partial

from controlplane.degradation.action import Errand, RewriteModel
from controlplane.degradation.actuator import Preflight
from controlplane.degradation.actuators.cluster import Cluster, Document, Kind, RefusedError, anew
from controlplane.degradation.actuators.kubernetes import refused_error
from controlplane.degradation.errand import wrong_with_rewrite
from controlplane.errors import ActuatorError

REWRITES = (
    Kind("llm-d.ai", "v1alpha2", "inferencemodelrewrites"),
    Kind("inference.networking.x-k8s.io", "v1alpha2", "inferencemodelrewrites"),
)
"""The kind has moved from one project to the other; the newest that a cluster serves is meant."""
MADE_BY = {"app.kubernetes.io/managed-by": "controlplane"}


def rule_of(rewrite: RewriteModel) -> Document:
    """Return the rule that a rewrite asks for."""
    percent = round(100 * rewrite.share)
    targets: list[Document] = [{"modelRewrite": rewrite.to, "weight": percent}]
    if percent < 100:
        targets.append({"modelRewrite": rewrite.model, "weight": 100 - percent})
    return {"matches": [{"model": {"type": "Exact", "value": rewrite.model}}], "targets": targets}


def document_of(rewrite: RewriteModel, kind: Kind, rules: list[Document], found: Document | None) -> Document:
    """Return what is applied: an object of our own, or the rules of one that is there."""
    document: Document = {
        "apiVersion": kind.api_version,
        "kind": "InferenceModelRewrite",
        "metadata": {"name": rewrite.name, "namespace": rewrite.namespace},
        "spec": {"rules": rules},
    }
    if found is None:
        document["spec"]["poolRef"] = {"name": rewrite.inference_pool}
        document["metadata"]["labels"] = MADE_BY
        return document
    # What we apply no more, we own no more: it would go, were it only ours.
    document["spec"]["poolRef"] = found["spec"]["poolRef"]
    if (found["metadata"].get("labels") or {}).items() >= MADE_BY.items():
        document["metadata"]["labels"] = MADE_BY
    # A rule that somebody changes meanwhile is not undone.
    document["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
    return document


class RewriteHand:
    """Puts rules into `InferenceModelRewrite` objects, and takes them out."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def preflight(self, errand: Errand) -> Preflight:
        """Try the change without keeping it, and remember whether the object is ours to take away."""
        try:
            rewrite = _rewrite(errand)
            kind, found = await self._find(rewrite)
            pool = (((found or {}).get("spec") or {}).get("poolRef") or {}).get("name", rewrite.inference_pool)
            if pool != rewrite.inference_pool:
                return Preflight(f"{_called(rewrite)} belongs to InferencePool {pool}, not {rewrite.inference_pool}")
            await anew(partial(self._put_in, rewrite, dry_run=True))
        except ActuatorError as error:
            return Preflight(f"{error.what}: {error.why}")
        except RefusedError as refused:
            shown = refused_error(_called(_rewrite(errand)), refused)
            return Preflight(f"{shown.what}: {shown.why}")
        how = "made in" if found is None else "put first in"
        return Preflight(
            preview=f"{_called(rewrite)} ({kind.group}): {how}: {_spell(rewrite)}", before={"made": int(found is None)}
        )

    async def apply(self, errand: Errand, key: str) -> str:  # noqa: ARG002 - the rule itself says what is applied
        """Put the rule first.

        Raises:
            ActuatorError: when the rules are somebody else's, or the API server refuses, or cannot be asked.
        """
        rewrite = _rewrite(errand)
        try:
            await anew(partial(self._put_in, rewrite, dry_run=False))
        except RefusedError as refused:
            raise refused_error(_called(rewrite), refused) from refused
        return f"{_called(rewrite)}: {_spell(rewrite)}"

    async def revert(self, errand: Errand, key: str, before: Mapping[str, str | int | None]) -> str:  # noqa: ARG002
        """Take the rule out, and the object with it where it was made for it and has no other.

        Raises:
            ActuatorError: when the API server refuses, or cannot be asked.
        """
        rewrite = _rewrite(errand)
        try:
            return await anew(partial(self._take_out, rewrite, made=bool(before.get("made"))))
        except RefusedError as refused:
            raise refused_error(_called(rewrite), refused) from refused

    async def observe(self, errand: Errand, key: str, done: str) -> str:  # noqa: ARG002 - it looks itself
        """Read the rule back, with what its gateway has against it."""
        rewrite = _rewrite(errand)
        try:
            _, found = await self._find(rewrite)
        except RefusedError as refused:
            raise refused_error(_called(rewrite), refused) from refused
        rules = list(((found or {}).get("spec") or {}).get("rules") or ())
        if not rules or not _same(rules[0], rule_of(rewrite)) or _is_refused(found or {}):
            return ""
        return f"{_called(rewrite)}: {_spell(rewrite)}"

    async def _put_in(self, rewrite: RewriteModel, *, dry_run: bool) -> None:
        kind, found = await self._find(rewrite)
        there = list(((found or {}).get("spec") or {}).get("rules") or ())
        rules = [rule_of(rewrite), *(rule for rule in there if not _same(rule, rule_of(rewrite)))]
        await self._applied(kind, rewrite, rules, found, dry_run=dry_run)

    async def _take_out(self, rewrite: RewriteModel, *, made: bool) -> str:
        kind, found = await self._find(rewrite)
        if found is None:
            return f"{_called(rewrite)}: gone"
        rules = list(found["spec"].get("rules") or ())
        others = [rule for rule in rules if not _same(rule, rule_of(rewrite))]
        if not others and made:
            try:
                await self._cluster.delete(kind, rewrite.namespace, rewrite.name, uid=found["metadata"]["uid"])
            except RefusedError as refused:  # In conflict it is another object by now, and not ours to take away.
                raise refused_error(_called(rewrite), refused) from refused
            return f"{_called(rewrite)}: taken away"
        if len(others) == len(rules):
            return f"{_called(rewrite)}: has no rule of ours"
        await self._applied(kind, rewrite, others, found, dry_run=False)
        return f"{_called(rewrite)}: {rewrite.model} is {rewrite.model} again"

    async def _applied(
        self, kind: Kind, rewrite: RewriteModel, rules: list[Document], found: Document | None, *, dry_run: bool
    ) -> None:
        body = document_of(rewrite, kind, rules, found)
        await self._cluster.apply(kind, rewrite.namespace, rewrite.name, body, force=rewrite.take_over, dry_run=dry_run)

    async def _find(self, rewrite: RewriteModel) -> tuple[Kind, Document | None]:
        """Return the kind that the cluster serves, and the object; None where there is none."""
        for kind in REWRITES:
            if await self._cluster.serves(kind):
                try:
                    return kind, await self._cluster.read(kind, rewrite.namespace, rewrite.name)
                except RefusedError as refused:
                    if refused.status != 404:
                        raise
                    return kind, None
        raise ActuatorError(
            "the cluster has no InferenceModelRewrite", f"none of {', '.join(k.api_version for k in REWRITES)} has it",
            "install the inference extension, or take `rewrite_model` out of the row",
        )  # fmt: skip


def _rewrite(errand: Errand) -> RewriteModel:
    if not isinstance(errand, RewriteModel):
        raise TypeError(f"not a rewrite of a model: {errand}")
    wrong = wrong_with_rewrite(errand)
    if wrong:
        raise ActuatorError(f"cannot rewrite {errand.model}", wrong, "mend the row's `rewrite_model`")
    return errand


def _same(one: Document, other: Document) -> bool:
    """Tell whether two rules say the same; what a server fills in by default does not matter."""

    def plain(rule: Document) -> Document:
        models = [(m["model"].get("type", "Exact"), m["model"]["value"]) for m in rule.get("matches") or ()]
        return {"models": models, "targets": [(t["modelRewrite"], t.get("weight")) for t in rule.get("targets") or ()]}

    return plain(one) == plain(other)


def _is_refused(found: Document) -> bool:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Accepted" and one.get("status") == "False" for one in conditions)


def _called(rewrite: RewriteModel) -> str:
    return f"InferenceModelRewrite {rewrite.namespace}/{rewrite.name}"


def _spell(rewrite: RewriteModel) -> str:
    return f"{rewrite.model} is {rewrite.to} for {rewrite.share:.0%}"
