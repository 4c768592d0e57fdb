"""A Kubernetes API server in this process, as far as levers touch one, and how a real one is prepared for them.

It keeps custom resources by their projects' own schemas (strictly: unknown fields are refused), knows server-side apply
with field managers for the fields that are atomic lists in those schemas, dry runs, resource versions, and scale.
"""

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import jsonschema
import yaml

from tests.support.answering import Answering, answering

Object = dict[str, Any]

CRDS = Path(__file__).resolve().parents[1] / "data" / "crds"
ATOMIC = {"virtualservices": "http", "httproutes": "rules"}
"""The one field of the spec that is owned as a whole; everything else here has no owner."""


def definitions() -> list[Object]:
    """Return the custom resource definitions."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(CRDS.glob("*.json"))]


def strict(schema: Any) -> Any:
    """Close a structural schema: what it does not name is refused, as `fieldValidation=Strict` does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items() if key != "format"}
    named = isinstance(closed.get("properties"), dict) and closed.get("type") == "object"
    if named and not closed.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
    return closed


def virtual_service() -> Object:
    """Return a route as a team would write it for Istio."""
    pools = [{"destination": {"host": pool}, "weight": 100 if pool == "primary" else 0} for pool in POOLS]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "chat", "namespace": "default"},
        "spec": {
            "hosts": ["chat.example.com"],
            "gateways": ["edge"],
            "http": [
                {"match": [{"uri": {"prefix": "/healthz"}}], "directResponse": {"status": 200}},
                {"name": "chat", "retries": {"attempts": 2, "perTryTimeout": "2s"}, "route": pools, "timeout": "60s"},
            ],
        },
    }


def http_route() -> Object:
    """Return a route as a team would write it for a Gateway API implementation."""
    pools = [{"name": pool, "port": 8000, "weight": 100 if pool == "primary" else 0} for pool in POOLS]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "chat", "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "edge"}],
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/healthz"}}], "backendRefs": [{"name": "health", "port": 80}]},  # noqa: E501
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
                    "filters": [
                        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-team", "value": "ml"}]}}  # noqa: E501
                    ],
                    "backendRefs": pools,
                },
            ],
        },
    }  # fmt: skip


POOLS = ("primary", "standby", "base")
ROUTES = {"virtualservice": virtual_service, "httproute": http_route}
PLURALS = {"virtualservice": "virtualservices", "httproute": "httproutes"}


def deployment(replicas: int = 3) -> Object:
    """Return a deployment whose replicas are all ready."""
    status = {"observedGeneration": 1, "replicas": replicas, "readyReplicas": replicas}
    return {"metadata": {"name": "engine", "generation": 1}, "spec": {"replicas": replicas}, "status": status}


def autoscaler(low: int = 2, high: int = 5) -> Object:
    """Return the autoscaler of another deployment."""
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}
    spec = {"minReplicas": low, "maxReplicas": high, "scaleTargetRef": target}
    return {"metadata": {"name": "engine"}, "spec": spec, "status": {"currentReplicas": low}}


@dataclass(slots=True)
class Api:
    """What the server holds."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    """By (plural, name)."""
    owners: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """The field managers of the atomic field."""
    versions: set[str] = field(default_factory=lambda: {"v1", "v2"})
    """Of the autoscaling group."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path with query of every request."""
    forbidden: set[str] = field(default_factory=set)
    """Methods that are answered 403."""
    meddle: list[Object] = field(default_factory=list)
    """Specs that somebody else writes right after the next reads, one each."""
    url: str = ""
    _version: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, plural: str, found: Object, owner: str = "kubectl-client-side-apply") -> Object:
        """Create or replace an object as somebody would."""
        self._version += 1
        kept = copy.deepcopy(found)
        kept["metadata"]["resourceVersion"] = str(self._version)
        self.objects[plural, kept["metadata"]["name"]] = kept
        self.owners[plural, kept["metadata"]["name"]] = {owner}
        return kept

    def spec(self, plural: str, name: str) -> Object:
        """Return the spec of an object."""
        found: Object = copy.deepcopy(self.objects[plural, name]["spec"])
        return found

    def answer(self, method: str, target: str, kind: str, body: Object) -> tuple[int, Object]:
        """Answer one request."""
        with self._lock:
            self.asked.append((method, target))
            parts = urlsplit(target)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            # /apis/GROUP/VERSION/namespaces/NS/PLURAL[/NAME[/scale]]
            group, version, _, _, plural, *rest = parts.path.strip("/").split("/")[1:]
            if group == "autoscaling" and version not in self.versions:
                return refusal(404, "the server could not find the requested resource")
            if method in self.forbidden:
                return refusal(403, f"{plural} is forbidden: User cannot {method.lower()}")
            if not rest:
                return 200, {"items": [found for (of, _), found in self.objects.items() if of == plural]}
            name, scale = rest[0], rest[1:] == ["scale"]
            found = self.objects.get((plural, name))
            if found is None:
                return refusal(404, f'{plural} "{name}" not found', {"name": name, "kind": plural})
            if method == "GET":
                shown = _scale_of(found) if scale else copy.deepcopy(found)
                if self.meddle:
                    self.put(plural, found | {"spec": self.meddle.pop(0)}, next(iter(self.owners[plural, name])))
                return 200, shown
            wanted = copy.deepcopy(found)
            if kind.startswith("application/apply-patch"):
                refused = self._apply(plural, name, wanted, body, query)
                if refused:
                    return refused
            else:
                wanted["spec"].update(body["spec"])
            if query.get("dryRun") != "All" and wanted != found:
                self._version += 1
                wanted["metadata"]["resourceVersion"] = str(self._version)
                self.objects[plural, name] = wanted
            return 200, _scale_of(wanted) if scale else wanted

    def _apply(
        self, plural: str, name: str, wanted: Object, body: Object, query: dict[str, str]
    ) -> tuple[int, Object] | None:
        """Merge an applied configuration into an object; return why it is refused."""
        manager = query["fieldManager"]
        fields = [ATOMIC[plural]] if plural in ATOMIC else list(body["spec"])
        version = body["metadata"].get("resourceVersion")
        if version not in (None, wanted["metadata"]["resourceVersion"]):
            return refusal(409, f'Operation cannot be fulfilled on {plural} "{name}": the object has been modified')
        owners = self.owners[plural, name]
        changes = any(wanted["spec"].get(field) != body["spec"][field] for field in fields)
        others = sorted(owners - {manager})
        if changes and others and query.get("force") != "true":
            causes = [
                {"reason": "FieldManagerConflict", "field": f".spec.{fields[0]}", "message": f'conflict with "{other}"'}
                for other in others
            ]
            return refusal(409, f"Apply failed with {len(causes)} conflict", {"name": name, "causes": causes})
        wanted["spec"] |= {field: body["spec"][field] for field in fields}
        problem = invalid(plural, wanted) if plural in _SCHEMAS else ""
        if problem:
            return refusal(422, problem, {"name": name})
        if query.get("dryRun") != "All":
            self.owners[plural, name] = {manager} if changes else owners | {manager}
        return None


_SCHEMAS = {
    one["spec"]["names"]["plural"]: strict(one["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    for one in definitions()
}


def invalid(plural: str, found: Object) -> str:
    """Return what a kind's schema has against an object, or an empty text."""
    schema = copy.deepcopy(_SCHEMAS[plural])
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}  # Every object has these.
    try:
        jsonschema.Draft202012Validator(schema).validate(found)
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    return ""


def refusal(status: int, message: str, details: Object | None = None) -> tuple[int, Object]:
    """Return a `Status` as the API server refuses with."""
    return status, {"kind": "Status", "status": "Failure", "code": status, "message": message, "details": details or {}}


def _scale_of(found: Object) -> Object:
    return {"metadata": {"name": found["metadata"]["name"]}, "spec": {"replicas": found["spec"]["replicas"]}}


@contextmanager
def api_server() -> Iterator[Api]:
    """Run the server."""
    api = Api()

    class Handler(Answering):
        api_: ClassVar[Api] = api

        def _serve(self) -> None:
            body = self.body()
            kind = self.headers.get("content-type") or ""
            status, answer = self.api_.answer(self.command, self.path, kind, json.loads(body) if body else {})
            self.say(json.dumps(answer).encode(), status)

        do_GET = do_PATCH = _serve  # noqa: N815 - the names that the server calls

    with answering(Handler) as port:
        api.url = f"http://127.0.0.1:{port}"
        yield api


def kubeconfig(folder: Path, url: str) -> Path:
    """Write a kubeconfig that leads to a server without any credentials."""
    path = folder / "kubeconfig"
    page = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(page), encoding="utf-8")
    return path
