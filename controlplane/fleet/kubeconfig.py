"""How an API server is reached and who asks: a kubeconfig's context, or the pod's own service account.

The official client reads them, with all its ways of getting a token. It is imported when the first cluster is asked:
that takes longer than all the rest of the control plane together. It blocks: call this in a thread.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from controlplane.errors import UnreachableError


def settings_of(kubeconfig: str = "", context: str = "") -> Any:
    """Return the official client's `Configuration` of a context.

    Args:
        kubeconfig: a file; empty means the pod's own service account, or else what `kubectl` would use.
        context: a context of that file; empty means its current one.

    Raises:
        UnreachableError: when there is no such file or context, or it cannot be used, with the contexts there are.
    """
    from kubernetes import client, config  # noqa: PLC0415 - see the module

    loaders: Any = config  # The client is not typed.
    settings = client.Configuration()
    try:
        if not kubeconfig and not context:
            try:
                loaders.load_incluster_config(client_configuration=settings)
            except config.ConfigException:
                loaders.load_kube_config(client_configuration=settings)
        else:
            loaders.load_kube_config(kubeconfig or None, context or None, settings)
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise _unusable(kubeconfig, context, error) from error
    settings.retries = 0  # Whoever asks has a plan for no answer; three more waits are not it.
    return settings


def _unusable(kubeconfig: str, context: str, error: Exception) -> UnreachableError:
    given = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    file = Path(given.split(os.pathsep)[0])
    if not file.exists():
        return UnreachableError(
            f"no kubeconfig at {file}", f"{type(error).__name__}: {error}",
            "name the file under `kubeconfig`, or run in a pod with a service account",
        )  # fmt: skip
    found = _contexts(file)
    if context and found and context not in found:
        return UnreachableError(
            f"no context `{context}` in {file}", f"its contexts: {', '.join(found)}", "name one of them under `context`"
        )
    return UnreachableError(
        f"cannot use {file}", f"{type(error).__name__}: {error}", f"try it: kubectl --kubeconfig {file} get pods"
    )


def _contexts(file: Path) -> tuple[str, ...]:
    """Return the contexts of a kubeconfig; none where it is none."""
    try:
        page = yaml.safe_load(file.read_text(encoding="utf-8"))
        return tuple(str(one["name"]) for one in page.get("contexts") or ())
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        return ()
