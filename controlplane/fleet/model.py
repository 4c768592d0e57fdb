"""The fleet as the policy describes it and as it stands now; pure values, no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

PRIMARY = "primary"
CACHE = "cache"
"""The pool that normally serves everything."""

GATEWAY_POOL = "gateway"
"""The gateway is watched like a pool of its own, under this name: what it answers is what users get."""

CONTROLPLANE_POOL = "controlplane"
"""What is broken when the control plane itself is: a pool of one, under this name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica of a pool (or the gateway itself)."""

    name: str
    pool: str
    url: str
    """Base URL without a trailing slash, such as `http://10.0.1.1:8000`."""
    node: str = ""
    """The node it runs on; empty when the inventory does not say."""
    model: str = ""
    zone: str = ""
    """Where its node stands (`topology.kubernetes.io/zone`); empty when the inventory does not say."""
    gpus: int = 0
    """GPUs that it was given; 0 when it has none, or the inventory does not say."""
    accelerator: str = ""
    """What kind they are, such as `NVIDIA-H200`; empty when the inventory does not say."""
    pod: str = ""
    """`NAMESPACE/NAME` of the pod that it is; empty outside Kubernetes."""


class Scheme(StrEnum):
    """How an endpoint is asked."""

    HTTP = "http"
    HTTPS = "https"


@dataclass(frozen=True, slots=True)
class KubernetesEndpoints:
    """The ready pods of a cluster; exactly one of `selector`, `service` and `inference_pool` says which."""

    selector: str = ""
    """A label selector, such as `app=vllm,tier in (gold)`."""
    service: str = ""
    """A Service's name: the endpoints of its EndpointSlices."""
    inference_pool: str = ""
    """An InferencePool's name: the pods that it selects, at its target ports."""
    namespace: str = "default"
    port: int = 0
    """0: the port of the Service or the InferencePool, and with `selector` the first one that a pod declares."""
    scheme: Scheme = Scheme.HTTP
    context: str = ""
    """A context of the kubeconfig; empty means its current one."""
    kubeconfig: str = ""
    """A kubeconfig file; empty means the pod's own service account, or else what `kubectl` would use. Relative paths
    start at the policy page."""


@dataclass(frozen=True, slots=True)
class PrometheusEndpoints:
    """What a Prometheus-compatible server scrapes; exactly one of `job` and `query` says which."""

    url: str
    """Its base URL, such as `http://prometheus:9090`."""
    job: str = ""
    """A scrape job: its active targets, by the addresses that are scraped."""
    query: str = ""
    """An expression: one endpoint for each `instance` label of its answer, such as `up{job="vllm"} == 1`."""
    scheme: Scheme = Scheme.HTTP
    every: timedelta = timedelta(seconds=5)
    timeout: timedelta = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class EndpointSource:
    """Where a pool's endpoints are listed; exactly one of them is given."""

    static: tuple[str, ...] = ()
    """Base URLs, written out."""
    file: str = ""
    """A Prometheus `file_sd` JSON file, read again whenever it changes. Relative paths start at the policy page."""
    kubernetes: KubernetesEndpoints | None = None
    prometheus: PrometheusEndpoints | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Replicas that serve the service in one role."""

    endpoints: EndpointSource
    model: str = ""
    """The model name sent in requests to this pool; empty means the first one its `/v1/models` lists."""


@dataclass(frozen=True, slots=True)
class EnvoySpec:
    """An Envoy driven by file-based xDS."""

    xds_dir: str
    """The directory Envoy watches; it holds `rds.json`. Relative paths start at the policy page."""
    admin: str
    """Envoy's admin address: a URL, or `file:PATH` of a file that holds `host:port`."""
    listener: str
    """Where users' requests enter: a URL, or `file:PATH` of a file that holds `host:port`."""


@dataclass(frozen=True, slots=True)
class KubernetesSpec:
    """A route object of a cluster: Istio's `VirtualService`, or a Gateway API `HTTPRoute`."""

    kind: str
    """`virtualservice` (networking.istio.io/v1) or `httproute` (gateway.networking.k8s.io/v1)."""
    name: str
    listener: str
    """Where users' requests enter: a URL, or `file:PATH` of a file that holds `host:port`."""
    namespace: str = "default"
    backends: Mapping[str, str] = field(default_factory=dict)
    """By pool: the Service's name in an `HTTPRoute`, `HOST` or `HOST/SUBSET` in a `VirtualService`; a pool that is not
    named here is called by its own name."""
    kubeconfig: str = ""
    """A kubeconfig file; empty means the pod's own service account, or else what `kubectl` would use."""
    context: str = ""
    """A context of the kubeconfig; empty means its current one."""
    take_over: bool = False
    """Take the rules from whoever owns them (`--force-conflicts`); otherwise a conflict of owners is refused."""


@dataclass(frozen=True, slots=True)
class WebhookSpec:
    """A service of your own that moves the traffic: plans are posted to it, and read back from it."""

    url: str
    listener: str
    """Where users' requests enter."""
    secret: str
    """Signs what is sent: `env:NAME` of a variable, or `file:PATH`."""


@dataclass(frozen=True, slots=True)
class LitellmSpec:
    """A LiteLLM proxy that keeps its models in its database (`store_model_in_db`)."""

    url: str
    """The proxy's base URL, where users' requests enter too."""
    key: str
    """Its admin key: `env:NAME` of a variable, or `file:PATH`."""
    deployments: Mapping[str, tuple[str, ...]]
    """By pool: the ids (`model_info.id`) of the deployments of one model group that belong to it."""


@dataclass(frozen=True, slots=True)
class DryRunSpec:
    """Moves nothing, and keeps what it would have moved: the way to live with a matrix before trusting it."""

    listener: str = ""
    """Where users' requests enter; empty sends no sample."""


@dataclass(frozen=True, slots=True)
class GatewaySpec:
    """What splits the service's traffic over its pools; exactly one is given."""

    envoy: EnvoySpec | None = None
    kubernetes: KubernetesSpec | None = None
    webhook: WebhookSpec | None = None
    litellm: LitellmSpec | None = None
    dry_run: DryRunSpec | None = None

    @property
    def listener(self) -> str:
        """The address at which users' requests enter, as it stands on the page; empty when it does not say."""
        if self.litellm:
            return self.litellm.url
        given = self.envoy or self.kubernetes or self.webhook or self.dry_run
        return given.listener if given else ""


@dataclass(frozen=True, slots=True)
class ProcessSubstrateSpec:
    """A fleet of supervised processes on this machine (`controlplane up`)."""

    nodes_dir: str
    """Where the node supervisors keep `<node>.json` and obey `<node>.hold`."""
    links_dir: str = ""
    """Where the link relays obey `<node>.link`; empty is `links` beside `nodes_dir`."""


@dataclass(frozen=True, slots=True)
class NetnsSubstrateSpec:
    """The same with every endpoint in a network namespace of its own (`controlplane up --netns`; Linux, root)."""

    nodes_dir: str
    """Where the node supervisors keep `<node>.json`, which names the namespace, and obey `<node>.hold`."""


@dataclass(frozen=True, slots=True)
class BurnerSpec:
    """The job that keeps the devices of an endpoint's node busy (`gpu-saturation`)."""

    image: str
    """An image that has `python -m controlplane` with PyTorch: the control plane's own, with its `target` extra."""
    gpus: int = 0
    """GPUs that it asks for; 0 asks for none and sees the node's, so that it burns what the endpoint computes on."""
    gpu_resource: str = "nvidia.com/gpu"
    """What a GPU is called among a node's resources."""
    runtime_class: str = ""
    """The runtime class that shows a container the GPUs; empty is the cluster's own."""
    cpu: str = "2"
    """The most CPU it may take, as Kubernetes writes it."""
    memory: str = "4Gi"
    """The most memory it may take."""


@dataclass(frozen=True, slots=True)
class KubernetesSubstrateSpec:
    """A fleet of pods in a cluster, in namespaces that have opted in."""

    namespaces: tuple[str, ...]
    """Where its pods are; nothing is broken, and nothing is looked for, anywhere else."""
    kubeconfig: str = ""
    """A kubeconfig file; empty means the pod's own service account, or else what `kubectl` would use."""
    context: str = ""
    """A context of the kubeconfig; empty means its current one."""
    opted_in: str = "controlplane.dev/chaos=allowed"
    """The label that a namespace must carry for anything in it to be broken, `KEY=VALUE`."""
    chaos_mesh: bool = True
    """Faults are given to Chaos Mesh where the cluster has it; it ends them by itself."""
    burner: BurnerSpec | None = None
    """None: no device can be saturated, but for CPUs by Chaos Mesh."""


@dataclass(frozen=True, slots=True)
class SubstrateSpec:
    """Where the fleet runs, so that faults know what to break; exactly one is given."""

    process: ProcessSubstrateSpec | None = None
    netns: NetnsSubstrateSpec | None = None
    kubernetes: KubernetesSubstrateSpec | None = None


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """The pools of one service, its gateway and the place it runs."""

    pools: Mapping[str, PoolSpec]
    """By role: `primary` is required; `standby` arms P0, `base` arms P2."""
    gateway: GatewaySpec | None = None
    """None: the fleet is watched, but no lever can be moved."""
    substrate: SubstrateSpec | None = None
    """None: no drill can be run."""
    engine: str = "auto"
    """Whose metric names to read: `auto` lets every page say for itself whose it is, and writes rules and panels with
    vLLM's names; else `vllm`, `sglang`, `tgi`, `triton`, `llamacpp`, `ray` or `reference` (which speaks vLLM's)."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The endpoints of a fleet at one moment, and what could not be read."""

    endpoints: tuple[Endpoint, ...]
    problems: tuple[str, ...] = ()

    def pool(self, name: str) -> tuple[Endpoint, ...]:
        """Return the endpoints of one pool, in the order they are listed."""
        return tuple(e for e in self.endpoints if e.pool == name)

    def by_name(self) -> dict[str, Endpoint]:
        """Return the endpoints keyed by name."""
        return {e.name: e for e in self.endpoints}
