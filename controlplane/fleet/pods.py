"""From a cluster's objects (Pod, Node, EndpointSlice, InferencePool) to endpoints; pure.

An object of another shape than the API's raises `ValueError`: whoever reads leaves it out, and says so.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.fleet.model import Endpoint, KubernetesEndpoints
from controlplane.fleet.selector import Requirement, exactly, selects

Document = Mapping[str, Any]

ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
PRODUCTS = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "cloud.google.com/gke-accelerator")
SERVICE = "kubernetes.io/service-name"
"""The label with which a slice names its Service."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What counts of one pod."""

    name: str
    labels: Mapping[str, str]
    ip: str = ""
    node: str = ""
    ready: bool = False
    """It runs, its containers are ready, and nobody has asked it to end."""
    gpus: int = 0
    port: int = 0
    """The first port that its containers declare; 0 where they declare none."""


@dataclass(frozen=True, slots=True)
class Node:
    """What counts of one node for the endpoints on it."""

    name: str
    zone: str = ""
    accelerator: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """One ready address of a Service."""

    host: str
    node: str = ""
    zone: str = ""
    pod: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """An EndpointSlice: some of the addresses of a Service."""

    service: str
    addresses: tuple[Address, ...]
    port: int = 0
    """The first of its ports; 0 where it names none."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What an InferencePool selects."""

    requirements: tuple[Requirement, ...]
    ports: tuple[int, ...]


def name_of(found: Document) -> str:
    """Return an object's name.

    Raises:
        ValueError: when it has none.
    """
    name = _mapping(found, "metadata").get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("an object without a name")
    return name


def read_pod(found: Document) -> Pod:
    """Read a Pod."""
    meta, spec, status = _mapping(found, "metadata"), _mapping(found, "spec"), _mapping(found, "status")
    held = {str(c.get("type")): c.get("status") for c in _list(status, "conditions")}
    ip, containers = str(status.get("podIP") or ""), _list(spec, "containers")
    ports = [port.get("containerPort") for container in containers for port in _list(container, "ports")]
    return Pod(
        name_of(found),
        _labels(meta),
        ip,
        str(spec.get("nodeName") or ""),
        ready=bool(ip)
        and status.get("phase") == "Running"
        and held.get("Ready") == "True"
        and not meta.get("deletionTimestamp"),
        gpus=sum(gpus_in(_limits(container)) for container in containers),
        port=next((port for port in ports if isinstance(port, int)), 0),
    )


def gpus_in(resources: Mapping[str, Any]) -> int:
    """Count the GPUs in a list of resources: whole ones, and parts of them (MIG), of any vendor.

    Raises:
        ValueError: when a count is none.
    """
    return sum(int(str(count)) for name, count in resources.items() if name.endswith("/gpu") or "/mig-" in name)


def read_node(found: Document) -> Node:
    """Read a Node."""
    labels = _labels(_mapping(found, "metadata"))
    return Node(
        name_of(found),
        next((labels[key] for key in ZONES if key in labels), ""),
        next((labels[key] for key in PRODUCTS if key in labels), ""),
    )


def read_slice(found: Document) -> Slice:
    """Read an EndpointSlice (`v1`, or `v1beta1` as clusters before 1.21 have it)."""
    service = _labels(_mapping(found, "metadata")).get(SERVICE, "")
    ports = [port.get("port") for port in _list(found, "ports")]
    addresses: list[Address] = []
    for endpoint in _list(found, "endpoints"):
        conditions, topology = _mapping(endpoint, "conditions"), _mapping(endpoint, "topology")
        if conditions.get("ready") is False or conditions.get("terminating"):
            continue  # An absent condition counts as ready, as the API says.
        about = _mapping(endpoint, "targetRef")
        node = endpoint.get("nodeName") or topology.get("kubernetes.io/hostname") or ""
        zone = endpoint.get("zone") or topology.get(ZONES[0]) or ""
        pod = str(about.get("name") or "") if about.get("kind") == "Pod" else ""
        hosts = endpoint.get("addresses") or []
        if not isinstance(hosts, list):
            raise ValueError("`addresses` is no list")  # noqa: TRY004 - a document's shape, not a caller's type
        addresses += [Address(str(host), str(node), str(zone), pod) for host in hosts]
    return Slice(service, tuple(addresses), next((port for port in ports if isinstance(port, int)), 0))


def read_inference_pool(found: Document) -> Selected:
    """Read an InferencePool (`inference.networking.k8s.io/v1`, or `inference.networking.x-k8s.io/v1alpha2`)."""
    spec = _mapping(found, "spec")
    selector = _mapping(spec, "selector")
    labels = selector["matchLabels"] if isinstance(selector.get("matchLabels"), Mapping) else selector
    ports = [port.get("number") for port in _list(spec, "targetPorts")] or [spec.get("targetPortNumber")]
    numbers = tuple(port for port in ports if isinstance(port, int))
    if not labels or not numbers:
        raise ValueError(f"InferencePool {name_of(found)} selects nothing, or names no port")
    return Selected(exactly({str(key): str(value) for key, value in labels.items()}), numbers)


@dataclass(frozen=True, slots=True)
class Naming:
    """How the endpoints of one pool are called, and what is said of all of them."""

    pool: str
    model: str
    spec: KubernetesEndpoints
    prefix: str = ""
    """Keeps pods of the same name in different namespaces or clusters apart."""

    def endpoint(self, name: str, host: str, port: int, node: Node, gpus: int = 0, pod: str = "") -> Endpoint:
        """Return one endpoint."""
        address = f"[{host}]" if ":" in host else host
        return Endpoint(
            f"{self.prefix}{name}", self.pool, f"{self.spec.scheme}://{address}:{port}", node.name, self.model,
            node.zone, gpus, node.accelerator, f"{self.spec.namespace}/{pod}" if pod else "",
        )  # fmt: skip


def pod_endpoints(
    naming: Naming, pods: Iterable[Pod], nodes: Mapping[str, Node], chosen: Selected
) -> tuple[tuple[Endpoint, ...], str]:
    """Return an endpoint for each ready pod that is selected (and each port, where several are), by name.

    Args:
        naming: how they are called.
        pods: of the namespace.
        nodes: by name, as far as they are known.
        chosen: which pods, and at which ports; no port: the first one that a pod declares.

    Returns:
        The endpoints, and what is wrong with pods that cannot be one; empty when nothing is.
    """
    found: list[Endpoint] = []
    silent: list[str] = []
    for pod in sorted(pods, key=lambda pod: pod.name):
        if not pod.ready or not selects(chosen.requirements, pod.labels):
            continue
        ports = chosen.ports or ((pod.port,) if pod.port else ())
        if not ports:
            silent.append(pod.name)
        node = nodes.get(pod.node, Node(pod.node))
        for port in ports:
            name = pod.name if len(ports) == 1 else f"{pod.name}-{port}"
            found.append(naming.endpoint(name, pod.ip, port, node, pod.gpus, pod.name))
    wrong = f"{silent[0]} and {len(silent) - 1} more declare" if len(silent) > 1 else f"{''.join(silent)} declares"
    return tuple(found), f"{wrong} no port: name it under `port`" if silent else ""


def slice_endpoints(
    naming: Naming, slices: Iterable[Slice], nodes: Mapping[str, Node]
) -> tuple[tuple[Endpoint, ...], str]:
    """Return an endpoint for each ready address of a Service, by name, and what is wrong, as `pod_endpoints` does."""
    found: dict[str, Endpoint] = {}
    portless = False
    for one in slices:
        port = naming.spec.port or one.port
        if one.service != naming.spec.service or not one.addresses:
            continue
        portless = portless or not port
        for address in one.addresses if port else ():
            known = nodes.get(address.node, Node(address.node))
            node = Node(known.name, known.zone or address.zone, known.accelerator)
            name = address.pod or address.host
            found[name] = naming.endpoint(name, address.host, port, node, pod=address.pod)
    wrong = f"service {naming.spec.service} names no port: name it under `port`" if portless else ""
    return tuple(found[name] for name in sorted(found)), wrong


# -- plain data --------------------------------------------------------------------------------------------------------


def _mapping(found: Any, key: str) -> Mapping[str, Any]:
    value = found.get(key) if isinstance(found, Mapping) else None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"`{key}` is no mapping")  # noqa: TRY004 - a document's shape, not a caller's type
    return value


def _list(found: Any, key: str) -> list[Mapping[str, Any]]:
    value = found.get(key) or [] if isinstance(found, Mapping) else []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ValueError(f"`{key}` is no list of mappings")
    return value


def _labels(meta: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in _mapping(meta, "labels").items()}


def _limits(container: Mapping[str, Any]) -> Mapping[str, Any]:
    resources = _mapping(container, "resources")
    return _mapping(resources, "limits") or _mapping(resources, "requests")
