"""What is deployed: the objects that kustomize makes of `deploy/kustomize`, and where an API server takes each."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.kube_lab.lab import CACHE
from tests.support.processes import ROOT

Object = dict[str, Any]

KUSTOMIZE = ROOT / "deploy" / "kustomize"
OVERLAYS = ("small", "ha")
COMPONENTS = ("read-only", "actuate", "cordon", "chaos", "chaos-burner", "chaos-nodes", "leader")
CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding")
_IRREGULAR = {"NetworkPolicy": "networkpolicies"}


def kubectl() -> str:
    """Return a kubectl whose kustomize knows components: the lab's, else this machine's; empty when there is none."""
    ours = CACHE / "kubectl"
    return str(ours) if os.access(ours, os.X_OK) else shutil.which("kubectl") or ""


def built(directory: Path) -> list[Object]:
    """Return the objects of a kustomization."""
    done = subprocess.run([kubectl(), "kustomize", directory], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def component(name: str, folder: Path) -> list[Object]:
    """Return the roles of one component, and what it makes besides, without the base that it is put upon."""
    folder.mkdir(parents=True, exist_ok=True)
    page = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [os.path.relpath(KUSTOMIZE / "base", folder.resolve())],
        "components": [os.path.relpath(KUSTOMIZE / "rbac" / name, folder.resolve())],
    }  # fmt: skip
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(page), encoding="utf-8")
    return [
        found for found in built(folder) if found["kind"].endswith(("Role", "RoleBinding")) or found["kind"] == "Lease"
    ]


def collection(found: Object) -> str:
    """Return the path at which an object is created."""
    kind, version = found["kind"], found["apiVersion"]
    plural = _IRREGULAR.get(kind, f"{kind.lower()}s")
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    within = "" if kind in CLUSTER_WIDE else f"/namespaces/{found['metadata']['namespace']}"
    return f"{base}{within}/{plural}"


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [found for found in objects if found["kind"] == kind]


def lost(sent: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Give the places of what was sent and not kept: an old server drops in silence what it does not know."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for key, value in sent.items():
            if key in kept:
                yield from lost(value, kept[key], f"{path}.{key}")
            elif value not in ({}, [], None, ""):
                yield f"{path}.{key}"
    elif isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        for number, (one, other) in enumerate(zip(sent, kept, strict=True)):
            yield from lost(one, other, f"{path}[{number}]")
    elif sent != kept:
        yield path
