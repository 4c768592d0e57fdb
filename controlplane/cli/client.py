"""Talking to a running control plane, with the standard library: a command must start fast."""

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.errors import ControlplaneError, UnreachableError, UsageError

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Client:
    """A running control plane."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        """Return what a path says."""
        return self._call("GET", path, None)

    def text(self, path: str) -> str:
        """Return what a path says, as it says it."""
        return self._ask("GET", path, None).decode()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask for something to be done and return the answer."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            return json.loads(self._ask(method, path, body))
        except ValueError as error:
            raise self._unreachable(error) from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> bytes:
        try:
            request = urllib.request.Request(  # noqa: S310 - the operator names the address
                self.url + path,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
                read: bytes = response.read()
                return read
        except urllib.error.HTTPError as error:
            raise _problem(error) from error
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"no control plane answers at {self.url}", str(error), "start one with `controlplane serve`"
        )


def _problem(error: urllib.error.HTTPError) -> ControlplaneError:
    """Turn a problem document back into the error it was made from."""
    try:
        problem = json.loads(error.read())
    except (OSError, ValueError):
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    kind = UsageError if error.code in (400, 404, 422) else ControlplaneError
    what = problem.get("title") or f"HTTP {error.code}"
    return kind(what, problem.get("detail", ""), problem.get("fix", ""))


def connect(state_dir: Path) -> Client:
    """Find the running control plane: `CONTROLPLANE_URL` and `CONTROLPLANE_TOKEN`, or its state directory.

    Raises:
        UnreachableError: when neither leads to one.
    """
    url, token = os.environ.get("CONTROLPLANE_URL", ""), os.environ.get("CONTROLPLANE_TOKEN", "")
    try:
        url = url or (state_dir / "url").read_text(encoding="utf-8").strip()
        token = token or (state_dir / "token").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UnreachableError(
            f"no control plane runs on {state_dir}", str(error),
            "start one with `controlplane serve`, name its --state-dir, or set CONTROLPLANE_URL and CONTROLPLANE_TOKEN",
        ) from error  # fmt: skip
    return Client(url.rstrip("/"), token)
