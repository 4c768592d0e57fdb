"""The manual steps of a row's runbook: exact commands, each with its check and its undo; pure.

Called by `rows`. Commands work on the gateway that the policy page names: an Envoy driven by files, or a route object
of a cluster; any other gateway is moved through the control plane, or by whoever owns it.
"""

from collections.abc import Iterator

from controlplane.degradation.actuator import Pull, RoutePlan, route
from controlplane.degradation.matrix import Mode, Row
from controlplane.fleet.model import PRIMARY
from controlplane.policy.model import Policy
from controlplane.render import markdown
from controlplane.render.runbooks import routes
from controlplane.render.runbooks.place import Place
from controlplane.render.runbooks.step import Step

WEIGHTS = (
    'curl -fsS "$ADMIN/config_dump?resource=dynamic_route_configs" '
    "| jq -c '.. | objects | select(has(\"weighted_clusters\")) | .weighted_clusters.clusters[] | {name, weight}'"
)
_LEVEL = "curl -sS -o /dev/null -D - \"$LISTENER/v1/models\" | grep -i '^x-degradation-level'"
_BACK = (
    "When the primary pool is well and has stayed well: all of it, and then the lever to the control plane, whose own "
    "way back goes by small steps. Where you can wait, undo step *Take the lever* instead and let it do this."
)


def steps(policy: Policy, row: Row, place: Place) -> tuple[Step, ...]:
    """Return the steps for one row, in order."""
    return tuple(_steps(policy, row, place))


def _steps(policy: Policy, row: Row, place: Place) -> Iterator[Step]:
    if policy.fleet.substrate is not None:
        yield heal(place)
    if row.move is not None:
        yield ask_pool(policy, row.target)
    if policy.fleet.gateway is None:
        return
    if policy.degradation.mode is not Mode.OBSERVE:
        yield pin(row)
    if row.move is None:
        return
    plan = route((Pull(row.level, row.do),))
    if place.envoy:
        yield _take_the_lever(place)
        yield _move(plan)
        yield _give_back()
    elif place.kubernetes:
        yield _take_the_lever(place)
        why = f"The rules are applied as the control plane would apply them. The split is {_split(plan)}."
        yield routes.move(policy, place, place.kubernetes, plan, "Move the traffic", why)
        yield routes.move(policy, place, place.kubernetes, route(()), "Give the traffic back", _BACK)


def heal(place: Place) -> Step:
    """End every fault that was injected on purpose."""
    return Step(
        "Rule out a fault of our own",
        "A drill's fault ends by itself; this ends it now. It heals everything that is leased and says what it did.",
        f"controlplane heal {markdown.shell(place.source)}",
        "no fault is in force.",
        "ask /api/v1/leases | jq -r 'if . == [] then \"none\" else .[].endpoint.name end'",
        no_undo="none is needed; healing twice is healing once.",
    )


def pin(row: Row) -> Step:
    """Have the control plane pull the lever because a person says so."""
    return Step(
        f"Have the control plane put {row.level} in force",
        "It asks the gate, moves the lever, proves it and keeps the receipt: whatever you would do, and faster. The "
        "pin keeps the row in force whatever its trigger says. Go on to the next step only where this fails.",
        f'controlplane pin {row.level} --for 30m --why "by hand, see the incident"',
        f"the level is `{row.level}`, and the newest receipt is `verified`.",
        "controlplane level\nask \"/api/v1/receipts?limit=1\" | jq -c '.[] | {id, state, detail}'",
        undo=f'controlplane unpin {row.level} --why "its trigger decides again"',
    )


def ask_pool(policy: Policy, pool: str) -> Step:
    """Ask a pool for real completions; the addresses are read as the policy names them."""
    source = policy.fleet.pools[pool].endpoints
    if source.file:
        listed = f"jq -r '.[].targets[]' {markdown.shell(source.file)}"
    else:
        listed = f"printf '%s\\n' {' '.join(markdown.shell(url) for url in source.static)}"
    label = markdown.shell(f'pool="{pool}"')
    return Step(
        f"Ask pool {markdown.text(pool)} whether it can serve",
        "Traffic that is sent to a dead pool is worse off than before.",
        f"{listed} | while read -r at; do\n"
        '  case "$at" in http*) ;; *) at="http://$at" ;; esac\n'
        "  model=$(curl -fsS -m 2 \"$at/v1/models\" | jq -r '.data[0].id')\n"
        '  curl -sS -m 5 -o /dev/null -w "$at %{http_code} %{time_total}s\\n" "$at/v1/completions" \\\n'
        "    -H 'content-type: application/json' "
        '-d "{\\"model\\": \\"$model\\", \\"prompt\\": \\"ping\\", \\"max_tokens\\": 4}"\n'
        "done",
        "every line above says 200, and the control plane's verdict on the pool is not `breach`.",
        f"ask /metrics | grep '^controlplane_verdict' | grep -F {label}",
        no_undo="nothing was changed.",
    )


def _take_the_lever(place: Place) -> Step:
    page = markdown.shell(place.source)
    return Step(
        "Take the lever from the control plane",
        "Otherwise it may move back what you move. In mode `observe` it goes on watching, and says what it would do. "
        "Write `mode: observe` under `degradation:` on the policy page, then:",
        f"controlplane check {page} > /dev/null\n"
        "# in the way it is kept running here:\n"
        "${RESTART:-systemctl restart controlplane}",
        "the mode is `observe`.",
        "ask /api/v1/standing | jq -r .mode",
        undo="# take `mode: observe` out again, then:\n"
        f"controlplane check {page} > /dev/null\n${{RESTART:-systemctl restart controlplane}}",
    )


def _move(plan: RoutePlan) -> Step:
    return Step(
        "Move the traffic",
        f"Envoy takes a new route file up when it is *renamed* into place; editing it in place does nothing. "
        f"The split is {_split(plan)}.",
        f'cp -p "$RDS" "$RDS.before"\n{_rewrite(plan, "$RDS.before")}',
        "the live weights are the ones above, and answers carry the level.",
        f"{WEIGHTS}\n{_LEVEL}",
        undo='cp -p "$RDS.before" "$RDS.new" && mv "$RDS.new" "$RDS"',
    )


def _give_back() -> Step:
    plan = route(())
    return Step(
        "Give the traffic back",
        _BACK,
        f'cp -p "$RDS" "$RDS.before"\n{_rewrite(plan, "$RDS.before")}',
        "the live weights are back at the primary, and the level is `none`.",
        f"{WEIGHTS}\n{_LEVEL}",
        undo='cp -p "$RDS.before" "$RDS.new" && mv "$RDS.new" "$RDS"',
    )


def _split(plan: RoutePlan) -> str:
    named = {PRIMARY: 0, **plan.weights}
    return ", ".join(f"{weight}% {markdown.code(pool)}" for pool, weight in named.items())


def _rewrite(plan: RoutePlan, before: str) -> str:
    """Return the command that writes weights and level into the route file and renames it into place."""
    weights = " ".join(f"--argjson w{i} {weight}" for i, weight in enumerate(plan.weights.values()))
    names = " ".join(f"--arg p{i} {markdown.shell(pool)}" for i, pool in enumerate(plan.weights))
    chosen = "".join(f"if .name == $p{i} then $w{i} else " for i in range(len(plan.weights)))
    ends = " end" * len(plan.weights)
    return (
        f"jq {names} {weights} --arg level {plan.level} '\n"
        '  (.. | objects | select(has("weighted_clusters")) | .weighted_clusters.clusters[])\n'
        f"    |= (.weight = ({chosen}0{ends}))\n"
        f'  | (.. | objects | select((.key? // "" | ascii_downcase) == "x-degradation-level")).value = $level\n'
        f'\' "{before}" > "$RDS.new" && mv "$RDS.new" "$RDS"'
    )
