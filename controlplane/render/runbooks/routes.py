"""Traffic moved by hand in a cluster: the route object as the control plane would apply it, and back; pure.

Applied server-side under the control plane's own name: a plain patch would make somebody else the owner of the rules,
and the control plane's next move would be refused as a conflict.
"""

from controlplane.degradation.actuator import RoutePlan
from controlplane.fleet.model import KubernetesSpec
from controlplane.policy.model import Policy
from controlplane.render import markdown
from controlplane.render.runbooks.place import Place
from controlplane.render.runbooks.step import Step

BEFORE, NEW = "route.before.json", "route.new.json"

_HEADER = "x-degradation-level"
_OURS = "{apiVersion, kind, metadata: {name: .metadata.name, namespace: .metadata.namespace}, spec: {%s: .spec.%s}}"
_NAME = {
    "virtualservice": '(.destination | .host + (if .subset then "/" + .subset else "" end))',
    "httproute": ".name",
}
_RULES = {"virtualservice": "http", "httproute": "rules"}
_BACKENDS = {"virtualservice": "route", "httproute": "backendRefs"}
_LEVEL = {
    "virtualservice": f'.headers.response.set["{_HEADER}"] = $level',
    "httproute": ".filters = ((.filters // [])\n"
    '        | if any(.[]; .type == "ResponseHeaderModifier") then .\n'
    '          else . + [{type: "ResponseHeaderModifier", responseHeaderModifier: {}}] end\n'
    '        | map(if .type != "ResponseHeaderModifier" then . else .responseHeaderModifier.set = (\n'
    f'            [.responseHeaderModifier.set[]? | select((.name | ascii_downcase) != "{_HEADER}")]\n'
    f'            + [{{name: "{_HEADER}", value: $level}}]) end))',
}


def move(policy: Policy, place: Place, spec: KubernetesSpec, plan: RoutePlan, title: str, why: str) -> Step:
    """Return the step that gives a route object a plan's weights and level."""
    kind, at = spec.kind, f"{place.kubectl} {{}} {spec.kind} {markdown.shell(spec.name)}"
    rules = _RULES[kind]
    apply = f"{place.kubectl} apply --server-side --force-conflicts --field-manager=controlplane -f"
    ours = _OURS % (rules, rules)
    return Step(
        title,
        why,
        f"{at.format('get')} -o json > {BEFORE}\n"
        f"jq {_arguments(policy, spec, plan)} '\n  {ours}\n{_program(kind, len(policy.fleet.pools))}\n"
        f"' {BEFORE} > {NEW} && {apply} {NEW}",
        "the rules carry the weights above, and answers carry the level.",
        f"{at.format('get')} -o json | jq -c '{_shown(kind)}'{_answers(place)}",
        undo=f"jq '{ours}' {BEFORE} | {apply} -",
    )


def shown(place: Place, spec: KubernetesSpec) -> str:
    """Return the command that prints a route's weights as they are."""
    return f"{place.kubectl} get {spec.kind} {markdown.shell(spec.name)} -o json | jq -c '{_shown(spec.kind)}'"


def _shown(kind: str) -> str:
    return f".spec.{_RULES[kind]}[] | [.{_BACKENDS[kind]}[]? | {{name: {_NAME[kind]}, weight}}]"


def _answers(place: Place) -> str:
    if not place.listener:
        return ""
    return f"\ncurl -sS -o /dev/null -D - \"$LISTENER/v1/models\" | grep -i '^{_HEADER}'"


def _arguments(policy: Policy, spec: KubernetesSpec, plan: RoutePlan) -> str:
    given = (
        f"--arg b{i} {markdown.shell(spec.backends.get(pool, pool))} --argjson w{i} {plan.weights.get(pool, 0)}"
        for i, pool in enumerate(policy.fleet.pools)
    )
    return f"{' '.join(given)} --arg level {plan.level}"


def _program(kind: str, pools: int) -> str:
    weights = ", ".join(f"($b{i}): $w{i}" for i in range(pools))
    backends = _BACKENDS[kind]
    return (
        f"  | {{{weights}}} as $weights\n"
        f"  | .spec.{_RULES[kind]} |= map(if any(.{backends}[]?; $weights[{_NAME[kind]}] != null)\n"
        f"      then .{backends} |= map(.weight = ($weights[{_NAME[kind]}] // 0))\n"
        f"      | {_LEVEL[kind]}\n"
        f"      else . end)"
    )
