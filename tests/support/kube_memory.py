"""An API server in memory, as far as faults of a cluster ask one: somebody else may act after any of their requests."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.fleet.cluster import JSON, Cluster, Document, Kind, RefusedError

Key = tuple[Kind, str, str]
"""Kind, namespace and name."""


class Memory(Cluster):
    """Objects by kind, namespace and name; each has a uid, and a version that every change makes a new one."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[Key, Document] = {}
        self.asked: list[str] = []
        """Verb and plural of every request, with the status of a refusal."""
        self.meanwhile: dict[int, Callable[[], object]] = {}
        """What somebody else does once so many requests have been answered; what has been done is here no more."""
        self._version = 0

    def put(self, kind: Kind, namespace: str, body: Document) -> Document:
        """Create or replace an object as somebody would."""
        self._version += 1
        made: Document = {"spec": {}, **copy.deepcopy(body)}
        about = made["metadata"]
        about |= {"uid": f"{about['name']}-{self._version}", "resourceVersion": str(self._version)}
        about |= {"namespace": namespace} if namespace else {}
        self.kept[kind, namespace, about["name"]] = made
        return made

    def change(self, kind: Kind, namespace: str, name: str, body: Document) -> Document:
        """Merge fields into an object as somebody would."""
        self._version += 1
        found = _merged(self.kept[kind, namespace, name], body)
        found["metadata"]["resourceVersion"] = str(self._version)
        self.kept[kind, namespace, name] = found
        return found

    async def _ask(
        self, verb: str, kind: Kind, namespace: str, name: str = "", body: Document | None = None,
        query: Mapping[str, str] | None = None, *, part: str = "", content: str = JSON,
    ) -> Document:  # fmt: skip
        self.asked.append(f"{verb} {kind.plural}")
        try:
            return copy.deepcopy(self._answer(verb, kind, namespace, name, body or {}, query or {}))
        except RefusedError as refused:
            self.asked[-1] += f": {refused.status}"
            raise
        finally:
            self.meanwhile.pop(len(self.asked), lambda: None)()

    def _answer(
        self, verb: str, kind: Kind, namespace: str, name: str, body: Document, query: Mapping[str, str]
    ) -> Document:
        if verb == "list":
            of_kind = [o for (k, n, _), o in self.kept.items() if k == kind and namespace in ("", n)]
            return {"items": [found for found in of_kind if _chosen(found, query)]}
        if verb == "create":
            called = body["metadata"]["name"]
            if (kind, namespace, called) in self.kept:
                raise RefusedError(409, f'{kind.plural} "{called}" already exists', {"name": called})
            return self.put(kind, namespace, body)
        found = self.kept.get((kind, namespace, name))
        if found is None:
            raise RefusedError(404, f'{kind.plural} "{name}" not found', {"name": name})
        said = {**body.get("metadata", {}), **body.get("preconditions", {})}
        if any(said.get(key, found["metadata"][key]) != found["metadata"][key] for key in ("uid", "resourceVersion")):
            raise RefusedError(409, f'{kind.plural} "{name}" is another by now', {"name": name})
        if verb == "delete":
            return self.kept.pop((kind, namespace, name))
        return self.change(kind, namespace, name, body) if verb == "patch" else found


def _chosen(found: Document, query: Mapping[str, str]) -> bool:
    """Tell whether selectors of labels (`a`, `a=b`) and fields select an object."""
    labels: Mapping[str, str] = found["metadata"].get("labels") or {}
    for part in filter(None, query.get("labelSelector", "").split(",")):
        key, sign, value = part.partition("=")
        if key not in labels or (sign and labels[key] != value):
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = part.partition("=")
        at: Any = found
        for step in path.split("."):
            at = at.get(step, {})
        if at != value:
            return False
    return True


def _merged(found: Document, body: Document) -> Document:
    """Merge as RFC 7386 says: what is null goes."""
    made = dict(found)
    for key, value in body.items():
        if isinstance(value, dict):
            made[key] = _merged(made.get(key) or {}, value)
        elif value is None:
            made.pop(key, None)
        else:
            made[key] = value
    return made
