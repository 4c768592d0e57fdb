"""How dashboards come to a Grafana by themselves: its provisioning files, and ConfigMaps for its sidecar; pure.

Called by `collection`. The third way, its HTTP API, is `controlplane dashboards push`.
"""

import json
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

FOLDER = "LLM resilience"
FOLDER_UID = "controlplane"

SIDECAR_LABEL = "grafana_dashboard"
"""What the sidecar of Grafana's Helm chart looks for unless it is told another (`sidecar.dashboards.label`)."""
SIDECAR_FOLDER = "grafana_folder"
"""The annotation by which it chooses a folder (`sidecar.dashboards.folderAnnotation: grafana_folder`)."""

MAX_BYTES = 1_048_576
"""What Kubernetes allows a ConfigMap."""

DIRECTORY = "/var/lib/grafana/dashboards/controlplane"


def provider(header: str) -> str:
    """Return the file for `/etc/grafana/provisioning/dashboards/`."""
    page = {
        "apiVersion": 1,
        "providers": [{
            "name": "controlplane", "orgId": 1, "type": "file", "folder": FOLDER, "folderUid": FOLDER_UID,
            "disableDeletion": False, "allowUiUpdates": False, "updateIntervalSeconds": 30,
            "options": {"path": DIRECTORY, "foldersFromFilesStructure": False},
        }],
    }  # fmt: skip
    about = f"For /etc/grafana/provisioning/dashboards/; put the dashboards (*.json) into {DIRECTORY}."
    return _commented(header, about) + _yaml(page)


def source(header: str) -> str:
    """Return the file for `/etc/grafana/provisioning/datasources/`, for a Grafana that has no Prometheus yet."""
    page = {
        "apiVersion": 1,
        "datasources": [{
            "name": "Prometheus", "uid": "prometheus", "type": "prometheus", "access": "proxy",
            "url": "http://prometheus:9090", "isDefault": True,
            "jsonData": {"httpMethod": "POST", "timeInterval": "5s"},
        }],
    }  # fmt: skip
    about = (
        "For /etc/grafana/provisioning/datasources/, where Grafana has no Prometheus yet; change `url`, and set "
        "`timeInterval` to Prometheus's scrape interval: rates are taken over four of it."
    )
    return _commented(header, about) + _yaml(page)


def config_maps(dashboards: Mapping[str, Mapping[str, Any]], header: str) -> str:
    """Return a ConfigMap for each dashboard, as Grafana's sidecar takes them; JSON on one line, to stay small."""
    about = (
        "ConfigMaps for the dashboard sidecar of Grafana's Helm chart: kubectl apply --namespace NAMESPACE -f FILE. "
        "The sidecar needs `searchNamespace` where they lie elsewhere than Grafana."
    )
    documents = (_config_map(name, dashboard) for name, dashboard in dashboards.items())
    return _commented(header, about) + "---\n" + "---\n".join(documents)


def kustomization(header: str) -> str:
    """Return what lets a kustomization elsewhere take the ConfigMaps in: `resources: [.../dashboards/provisioning]`."""
    page = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["configmaps.yaml"],
    }  # fmt: skip
    return _commented(header, "The dashboards for a kustomization elsewhere, which names this directory.") + _yaml(page)


def _config_map(name: str, dashboard: Mapping[str, Any]) -> str:
    body = json.dumps(dashboard, separators=(",", ":"), sort_keys=True)
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: controlplane-{name}
  labels: {{ {SIDECAR_LABEL}: "1", app.kubernetes.io/part-of: controlplane }}
  annotations: {{ {SIDECAR_FOLDER}: {FOLDER} }}
data:
  {name}.json: |-
    {body}
"""


def _commented(*lines: str) -> str:
    wrapped = "\n".join("\n".join(textwrap.wrap(line, 118)) for line in lines)
    return textwrap.indent(wrapped, "# ") + "\n"


def _yaml(page: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(page), sort_keys=False, allow_unicode=True, width=110)
