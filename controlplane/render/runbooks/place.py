"""Where the commands of a page work: addresses, `kubectl` and logs, as the policy names them; pure.

Every page begins with `setup`, which sets what its later blocks use; nothing else on a page names an address.
"""

import re
from dataclasses import dataclass

from controlplane.fleet.model import PRIMARY, EnvoySpec, KubernetesSpec
from controlplane.policy.model import Policy
from controlplane.render import markdown, promql

_ASK = """\
ask() {    # PATH: what the API says, with the token of this machine, which stays out of the list of processes
  local trust=() pinned="$CONTROLPLANE_STATE_DIR/server.pem"
  [ ! -e "$pinned" ] || trust=(--cacert "$pinned")
  printf 'header = "authorization: Bearer %s"\\n' "$(cat "$CONTROLPLANE_STATE_DIR/token")" |
    curl -fsS "${trust[@]}" -K - "$CONTROL$1"
}"""
_PLACEHOLDER = re.compile(r"\{[a-z]+\}")


@dataclass(frozen=True, slots=True)
class Place:
    """What a page needs to know of where it is used."""

    source: str
    """The policy page's name."""
    service: str
    matcher: str
    """Selects our series in PromQL, without braces."""
    engine: str
    """Selects the engine's series."""
    dashboard: str
    """Path of the fleet's dashboard on the Grafana server."""
    envoy: EnvoySpec | None
    kubernetes: KubernetesSpec | None
    listener: str
    """A shell word for the address at which users' requests enter; empty when the policy does not say."""
    kubectl: str
    """The command with its namespace and context; empty where no cluster is named."""
    selector: str
    """Labels of the primary pool's pods, as a shell word."""
    logs: str
    """Shell words that are the engines' log files; empty when the policy does not say."""
    nodes: str
    """A shell word: the directory in which supervisors of processes say who serves; empty without them."""

    def setup(self) -> str:
        """Return the first block of a page: what its other blocks take for granted."""
        lines = [
            'export CONTROLPLANE_STATE_DIR="${CONTROLPLANE_STATE_DIR:-state}"    # or the --state-dir of the server',
            'CONTROL="${CONTROL:-$(cat "$CONTROLPLANE_STATE_DIR/url")}"    # its address, as it prints it at its start',
            _ASK,
        ]
        if self.envoy:
            lines += [
                f"ADMIN={address(self.envoy.admin)}",
                f"RDS={markdown.shell(self.envoy.xds_dir.rstrip('/') + '/rds.json')}",
            ]
        if self.listener:
            lines.append(f"LISTENER={self.listener}")
        if self.kubectl:
            lines.append(f'SELECTOR="${{SELECTOR:-{self.selector}}}"    # labels of the primary pool\'s pods')
        if self.logs:
            lines.append(f"LOGS=({self.logs})")
        elif not self.kubectl:
            lines.append("LOGS=(/var/log/vllm/*.log)    # where the engines write; the policy page does not say")
        return "\n".join(lines)


def place_of(policy: Policy, source: str, dashboard: str) -> Place:
    """Return where the commands of one policy's pages work."""
    gateway = policy.fleet.gateway
    envoy, kubernetes = (gateway.envoy, gateway.kubernetes) if gateway else (None, None)
    events = next((probe.events for probe in policy.probes if probe.events), None)
    logs = next((probe.logs.file for probe in policy.probes if probe.logs), "")
    substrate = policy.fleet.substrate
    processes = (substrate.process or substrate.netns) if substrate else None
    backend = (kubernetes.backends.get(PRIMARY, PRIMARY) if kubernetes else PRIMARY).partition("/")[0].partition(".")[0]
    pods = policy.fleet.pools[PRIMARY].endpoints.kubernetes
    said = kubernetes or pods or events
    namespace = said.namespace if said else ""
    chosen = (events.selector if events else "") or (pods.selector if pods else "")
    return Place(
        source,
        policy.service,
        f"service={promql.quoted(policy.service)}",
        promql.engine_matcher(policy.service),
        dashboard,
        envoy,
        kubernetes,
        address(gateway.listener) if gateway and gateway.listener else "",
        _kubectl(kubernetes, namespace),
        _label(chosen or f"app={backend}"),
        _globs(logs),
        markdown.shell(processes.nodes_dir.rstrip("/")) if processes else "",
    )


def address(value: str) -> str:
    """Return a shell word that gives an address, read from a file where the page says so."""
    if value.startswith("file:"):
        return f'"http://$(cat {markdown.shell(value.removeprefix("file:"))})"'
    return markdown.shell(value.rstrip("/"))


def _kubectl(spec: KubernetesSpec | None, namespace: str) -> str:
    if not namespace:
        return ""
    words = ["kubectl"]
    if spec and spec.kubeconfig:
        words += ["--kubeconfig", markdown.shell(spec.kubeconfig)]
    if spec and spec.context:
        words += ["--context", markdown.shell(spec.context)]
    return " ".join([*words, "-n", markdown.shell(namespace)])


def _label(selector: str) -> str:
    """Return a label selector as it may stand inside double quotes of a shell."""
    return re.sub(r"[^A-Za-z0-9._/=,!()-]", "", selector)


def _globs(file: str) -> str:
    """Return a log's path with its placeholders as shell globs, everything else quoted."""
    if not file:
        return ""
    kept = _PLACEHOLDER.split(file)
    return "*".join(markdown.shell(part) if part else "" for part in kept)
