"""Measures: single things to do by hand that several alerts call for, written for where the page is used; pure."""

from collections.abc import Callable, Mapping
from enum import StrEnum

from controlplane.degradation.matrix import LEVELS, Level, Mode, Row
from controlplane.fleet.model import PRIMARY
from controlplane.policy.model import Policy
from controlplane.render import markdown
from controlplane.render.runbooks import by_hand
from controlplane.render.runbooks.place import Place
from controlplane.render.runbooks.step import Step

_STANDING = (
    "ask /api/v1/standing | jq -c '.pools[].endpoints[] | {name: .endpoint.name, pool: .endpoint.pool, up, detail}'"
)


class Measure(StrEnum):
    """What can be done by hand."""

    HEAL = "heal"
    ASK_PRIMARY = "ask primary"
    ASK_FALLBACK = "ask fallback"
    PIN = "pin"
    """Put the row that the alert leads to in force."""
    RESTART = "restart"
    """Restart one endpoint."""
    KEEP = "keep"
    """Keep the evidence before it is gone."""
    ROLL_BACK = "roll back"
    ADD = "add"
    DRAIN = "drain"
    """Keep a node from new work."""
    ANSWER = "answer"
    """Say yes or no to a row that waits."""
    LET_GO = "let go"
    """Of the brake."""
    REHEARSE = "rehearse"
    START = "start"
    """The control plane."""
    FREE = "free"
    """CPU for the control plane."""
    PROMETHEUS = "prometheus"
    RELEASE = "release"


Make = Callable[[Policy, Row | None, Place], Step | None]


def steps(wanted: tuple[Measure, ...], policy: Policy, row: Row | None, place: Place) -> tuple[Step, ...]:
    """Return the measures that can be taken where the page is used, in the order they are wanted.

    Args:
        wanted: what the alert calls for.
        policy: of the service.
        row: that the alert leads to; None when it leads to none.
        place: where the page is used.
    """
    made = (_MAKE[measure](policy, row, place) for measure in wanted)
    return tuple(step for step in made if step)


def worst(policy: Policy) -> Row | None:
    """Return the row that is pulled when everything else is lost."""
    level = max(policy.degradation.rows, key=LEVELS.index, default=Level.NONE)
    return policy.degradation.rows.get(level)


def _heal(policy: Policy, _: Row | None, place: Place) -> Step | None:
    return by_hand.heal(place) if policy.fleet.substrate else None


def _ask_primary(policy: Policy, _: Row | None, __: Place) -> Step | None:
    return by_hand.ask_pool(policy, PRIMARY)


def _ask_fallback(policy: Policy, row: Row | None, _: Place) -> Step | None:
    chosen = row if row and row.move else worst(policy)
    return by_hand.ask_pool(policy, chosen.target) if chosen and chosen.move else None


def _pin(policy: Policy, row: Row | None, _: Place) -> Step | None:
    if row is None or policy.fleet.gateway is None or policy.degradation.mode is Mode.OBSERVE:
        return None
    return by_hand.pin(row)


def _restart(_: Policy, __: Row | None, place: Place) -> Step | None:
    if place.kubectl:
        return Step(
            "Restart one endpoint, never all at once",
            "The pod's controller makes another; the pool has one less until it has loaded its model.",
            f'{place.kubectl} get pods -l "$SELECTOR" -o wide\n'
            f'{place.kubectl} delete pod "${{POD:?name the pod that is ill}}"',
            "every pod is ready again.",
            f'{place.kubectl} wait --for=condition=Ready pod -l "$SELECTOR" --timeout=15m',
            no_undo="none is needed: the controller has made another by then.",
        )
    if place.nodes:
        return Step(
            "Restart one endpoint, never all at once",
            "Its supervisor starts it again at once; the pool has one less until it has loaded its model.",
            f"jq -r '\"\\(.endpoint) on \\(.node): pid \\(.pid), restarts \\(.restarts)\"' {place.nodes}/*.json\n"
            f'kill -TERM "$(jq -r --arg ill "${{ILL:?name the endpoint that is ill}}" '
            f"'select(.endpoint == $ill) | .pid' {place.nodes}/*.json)\"",
            "it is up again.",
            _STANDING,
            no_undo="none is needed: the supervisor has started it again.",
        )
    return Step(
        "Restart one endpoint, never all at once",
        "The pool has one less until it has loaded its model. In the way the engine is kept running on its host:",
        'ssh "${HOST:?name the host whose endpoint is ill}" "${RESTART_ENGINE:-sudo systemctl restart vllm}"',
        "it is up again.",
        _STANDING,
        no_undo="none is needed.",
    )


def _keep(_: Policy, __: Row | None, place: Place) -> Step | None:
    kept = 'KEPT="${KEPT:-$(mktemp -d)}"\ncontrolplane record --for 30m > "$KEPT/signals.jsonl"\n'
    kept += 'ask /api/v1/standing > "$KEPT/standing.json"'
    if place.kubectl:
        kept += f'\n{place.kubectl} logs -l "$SELECTOR" --tail=2000 --prefix > "$KEPT/engines.log"'
    elif place.logs:
        kept += '\ntail -n 2000 "${LOGS[@]}" > "$KEPT/engines.log"'
    return Step(
        "Keep the evidence",
        "A restart takes logs, stacks and counters with it. The last 30 minutes of every signal can be replayed later "
        "with `controlplane simulate`.",
        kept,
        "the files are there and not empty.",
        'wc -c "$KEPT"/*',
        undo='rm -r "$KEPT"    # once it is attached to the incident',
    )


def _roll_back(_: Policy, __: Row | None, place: Place) -> Step | None:
    if not place.kubectl:
        return None
    at = 'deployment "${DEPLOYMENT:?name the deployment that was changed}"'
    return Step(
        "Roll the release back",
        "Only where the trouble began with it. The way back takes as long as loading the model.",
        f"{place.kubectl} rollout history {at}\n{place.kubectl} rollout undo {at}",
        "the old revision has rolled out.",
        f"{place.kubectl} rollout status {at} --timeout=30m",
        undo=f"{place.kubectl} rollout undo {at}",
    )


def _add(_: Policy, __: Row | None, place: Place) -> Step | None:
    if not place.kubectl:
        return None
    at = 'deployment "${DEPLOYMENT:?name the deployment that is too small}"'
    return Step(
        "Add replicas",
        "Only where GPUs are free: what stays pending helps nobody. An autoscaler puts back what is set here.",
        f"{place.kubectl} get {at} -o jsonpath='{{.spec.replicas}}' > replicas.before\n"
        f'{place.kubectl} scale {at} --replicas="$(( $(cat replicas.before) + 1 ))"',
        "the new one is ready.",
        f"{place.kubectl} rollout status {at} --timeout=30m",
        undo=f'{place.kubectl} scale {at} --replicas="$(cat replicas.before)"',
    )


def _drain(_: Policy, __: Row | None, place: Place) -> Step | None:
    if not place.kubectl:
        return None
    at = '"${NODE:?name the node that is ill}"'
    return Step(
        "Keep the node from new work",
        "A GPU that has lost its state serves wrong answers or none. Cordon first; drain once the pool can bear it.",
        f"kubectl cordon {at}",
        "the node is marked as not to be scheduled on.",
        f"kubectl get node {at} -o jsonpath='{{.spec.unschedulable}}'",
        undo=f"kubectl uncordon {at}",
    )


def _answer(policy: Policy, row: Row | None, _: Place) -> Step | None:
    chosen = row or worst(policy)
    if chosen is None:
        return None
    return Step(
        "Say yes or no",
        "Users feel the fault until you do. `controlplane level` says which row waits, and for what; the page of the "
        "row says what it moves.",
        f'controlplane level\ncontrolplane approve "${{ROW:-{chosen.level}}}" --why "seen, go" '
        '|| echo "it does not wait"',
        "the row engages; it stays so until its trigger has cleared.",
        "controlplane level",
        undo=f'controlplane release "${{ROW:-{chosen.level}}}" --why "taken back by hand" || echo "it is not in force"',
    )


def _let_go(_: Policy, __: Row | None, ___: Place) -> Step | None:
    return Step(
        "Let go of the brake",
        "Only once you know what went back and forth: the brake is there because it did. Replaying the recording with "
        "longer `for` and `hold` times shows what would have calmed it.",
        'controlplane brake release --why "cause found, see the incident" || echo "it is not on"',
        "nothing is braked.",
        "ask /api/v1/standing | jq -r .braked",
        undo='controlplane brake pull --why "it goes on"',
    )


def _rehearse(policy: Policy, _: Row | None, __: Place) -> Step | None:
    experiment = next((e for plan in policy.drills.values() for e in plan.experiments), "node-kill")
    name = markdown.shell(experiment)
    return Step(
        "Rehearse it",
        "In a quiet hour, with somebody watching. The dry run touches nothing: it says what would break, what survives "
        "and which gate is closed.",
        f'EXPERIMENT="${{EXPERIMENT:-{name}}}"\ncontrolplane drill run "$EXPERIMENT" --dry-run '
        '&& ${REALLY:-echo controlplane drill run} "$EXPERIMENT"    # REALLY="controlplane drill run" breaks it',
        "the newest drill of it has passed.",
        "controlplane drill list",
        undo='controlplane halt --why "called off by hand" && controlplane resume',
    )


def _start(policy: Policy, _: Row | None, __: Place) -> Step | None:
    return Step(
        "Start the control plane",
        f"It settles what it finds half done, and takes up what is in force. A second one on the same state directory "
        f"is refused, so a start is safe. The service is {markdown.code(policy.service)}.",
        "# in the way it is kept running here:\n${START:-systemctl start controlplane}",
        "it says `ok`, and that it is ready.",
        'curl -fsS "$CONTROL/healthz"\ncurl -fsS "$CONTROL/readyz" | jq .',
        undo="${STOP:-systemctl stop controlplane}",
    )


def _free(_: Policy, __: Row | None, ___: Place) -> Step | None:
    return Step(
        "Give it CPU",
        "It needs little, and needs it now: a loop that is late detects late.",
        'SERVER="$(cat "$CONTROLPLANE_STATE_DIR/lock")"\nps -eo pid,pcpu,ni,args --sort=-pcpu | head -n 8\n'
        'renice -n -5 -p "$SERVER" || echo "needs root: ask for more CPU for its cgroup instead"',
        "the loop is less than 0.1 s late.",
        "ask /metrics | grep '^controlplane_loop_lag_seconds'",
        undo='renice -n 0 -p "$SERVER" || true',
    )


def _prometheus(_: Policy, __: Row | None, ___: Place) -> Step | None:
    return Step(
        "Walk the way of an alert",
        "Prometheus evaluates, Alertmanager groups, a receiver delivers: the first that does not answer is it.",
        'curl -fsS "${PROMETHEUS:-http://localhost:9090}/-/healthy"\n'
        'curl -fsS "${ALERTMANAGER:-http://localhost:9093}/-/healthy"',
        "the alert stands in Alertmanager, too.",
        "curl -fsS \"${ALERTMANAGER:-http://localhost:9093}/api/v2/alerts\" | jq -r '.[].labels.alertname'",
        no_undo="nothing was changed.",
    )


def _release(policy: Policy, row: Row | None, _: Place) -> Step | None:
    chosen = row or worst(policy)
    if chosen is None or policy.fleet.gateway is None or policy.degradation.mode is Mode.OBSERVE:
        return None
    return Step(
        "Give the traffic back by hand",
        "Only where it does not go back by itself: see first whether the primary pool is well, and whether a pin or "
        "the brake holds the row.",
        f'controlplane level\ncontrolplane release {chosen.level} --why "primary is well, see the incident" '
        '|| echo "it is not in force"',
        "the row is releasing, or idle.",
        "controlplane level",
        undo=f"controlplane level | grep -q '{chosen.level} releasing' && "
        f'controlplane pin {chosen.level} --for 30m --why "not yet" || echo "nothing is being given back"',
    )


_MAKE: Mapping[Measure, Make] = {
    Measure.HEAL: _heal,
    Measure.ASK_PRIMARY: _ask_primary,
    Measure.ASK_FALLBACK: _ask_fallback,
    Measure.PIN: _pin,
    Measure.RESTART: _restart,
    Measure.KEEP: _keep,
    Measure.ROLL_BACK: _roll_back,
    Measure.ADD: _add,
    Measure.DRAIN: _drain,
    Measure.ANSWER: _answer,
    Measure.LET_GO: _let_go,
    Measure.REHEARSE: _rehearse,
    Measure.START: _start,
    Measure.FREE: _free,
    Measure.PROMETHEUS: _prometheus,
    Measure.RELEASE: _release,
}
