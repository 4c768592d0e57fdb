"""The manual steps of a row's runbook: exact commands, each with its check and its undo; pure.

Called by `runbooks`. Commands work on what the policy page names: an Envoy driven by files, and a fleet of processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.degradation.actuator import Pull, RoutePlan, route
from controlplane.degradation.matrix import Row
from controlplane.fleet.model import PRIMARY
from controlplane.policy.model import Policy
from controlplane.render import markdown

_WEIGHTS = (
    'curl -fsS "$ADMIN/config_dump?resource=dynamic_route_configs" '
    "| jq -c '.. | objects | select(has(\"weighted_clusters\")) | .weighted_clusters.clusters[] | {name, weight}'"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do by hand."""

    title: str
    why: str
    do: str
    expect: str
    check: str
    undo: str = ""
    no_undo: str = ""
    """Why there is nothing to undo."""


def steps(policy: Policy, row: Row, source: str) -> tuple[Step, ...]:
    """Return the steps for one row, in order."""
    return tuple(_steps(policy, row, source))


def _steps(policy: Policy, row: Row, source: str) -> Iterator[Step]:
    if policy.fleet.substrate is not None:
        yield _heal(source)
    yield _ask_target(policy, row)
    if policy.fleet.gateway is not None and policy.fleet.gateway.envoy is not None:
        yield _take_the_lever(source)
        yield _move(row)
        yield _give_back()


def _heal(source: str) -> Step:
    return Step(
        "Rule out a fault of our own",
        "A drill's fault ends by itself; this ends it now. It heals everything that is leased and says what it did.",
        f"controlplane heal {markdown.shell(source)}",
        "no fault is in force.",
        'curl -fsS -H "authorization: Bearer $TOKEN" "$CONTROL/metrics" '
        "| grep '^controlplane_faults_active' || echo none",
        no_undo="none is needed; healing twice is healing once.",
    )


def _ask_target(policy: Policy, row: Row) -> Step:
    """Ask the pool that is to take the traffic; the addresses are read as the policy names them."""
    source = policy.fleet.pools[row.target].endpoints
    if source.file:
        listed = f"jq -r '.[].targets[]' {markdown.shell(source.file)}"
    else:
        listed = f"printf '%s\\n' {' '.join(markdown.shell(url) for url in source.static)}"
    return Step(
        f"Ask pool {markdown.text(row.target)} whether it can serve",
        "Traffic that is sent to a dead pool is worse off than before.",
        f"{listed} | while read -r at; do\n"
        '  case "$at" in http*) ;; *) at="http://$at" ;; esac\n'
        "  model=$(curl -fsS -m 2 \"$at/v1/models\" | jq -r '.data[0].id')\n"
        '  curl -sS -m 5 -o /dev/null -w "$at %{http_code} %{time_total}s\\n" "$at/v1/completions" \\\n'
        "    -H 'content-type: application/json' "
        '-d "{\\"model\\": \\"$model\\", \\"prompt\\": \\"ping\\", \\"max_tokens\\": 4}"\n'
        "done",
        "every line above says 200, and Prometheus calls the pool `ok`.",
        'curl -fsS -H "authorization: Bearer $TOKEN" "$CONTROL/metrics" | grep \'^controlplane_verdict\' | '
        f"grep -F {markdown.shell(_pool_label(row.target))}",
        no_undo="nothing was changed.",
    )


def _pool_label(pool: str) -> str:
    return f'pool="{pool}"'


def _take_the_lever(source: str) -> Step:
    page = markdown.shell(source)
    return Step(
        "Take the lever from the control plane",
        "Otherwise it may move back what you move. In mode `observe` it goes on watching, and says what it would do. "
        "Write `mode: observe` under `degradation:` on the policy page, then:",
        f"controlplane check {page}\n"
        "# restart `controlplane serve` in the way it is kept running here, for example:\n"
        "systemctl restart controlplane",
        "the mode is `observe`.",
        'curl -fsS -H "authorization: Bearer $TOKEN" "$CONTROL/api/v1/standing" '
        "| jq -r '.. | objects | select(has(\"mode\")) | .mode'",
        undo=f"# take `mode: observe` out again, then:\ncontrolplane check {page}\nsystemctl restart controlplane",
    )


def _move(row: Row) -> Step:
    plan = route((Pull(row.level, row.do),))
    return Step(
        "Move the traffic",
        f"Envoy takes a new route file up when it is *renamed* into place; editing it in place does nothing. "
        f"The split is {_split(plan)}.",
        f'cp -p "$RDS" "$RDS.before"\n{_rewrite(plan, "$RDS.before")}',
        "the live weights are the ones above, and answers carry the level.",
        f"{_WEIGHTS}\ncurl -sS -o /dev/null -D - \"$LISTENER/v1/models\" | grep -i '^x-degradation-level'",
        undo='cp -p "$RDS.before" "$RDS.new" && mv "$RDS.new" "$RDS"',
    )


def _give_back() -> Step:
    plan = route(())
    return Step(
        "Give the traffic back",
        "When the primary pool is well and has stayed well: all of it, and then the lever to the control plane, whose "
        "own way back goes by small steps. Where you can wait, undo step *Take the lever* instead and let it do this.",
        f'cp -p "$RDS" "$RDS.before"\n{_rewrite(plan, "$RDS.before")}',
        "the live weights are back at the primary, and the level is `none`.",
        f"{_WEIGHTS}\ncontrolplane status",
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
