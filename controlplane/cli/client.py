"""Talking to a running control plane, with the standard library: a command must start fast."""

import json
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.cli.remote import Remote, named
from controlplane.errors import ControlplaneError, UnreachableError, UsageError
from controlplane.tls import CA_FILE, client_context

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Client:
    """A running control plane."""

    url: str
    token: str = field(repr=False)
    trusted: ssl.SSLContext | None = field(default=None, compare=False)
    """Whom to believe that they are it; the system's authorities when none is given."""

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
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self.trusted) as response:  # noqa: S310
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
    """Find the running control plane: by `--url` or `CONTROLPLANE_URL` with a token, or by its state directory.

    The token in a state directory goes to the control plane of that directory only: whoever answers at another address
    is given another token, by `--token-file`, `CONTROLPLANE_TOKEN` or `CONTROLPLANE_TOKEN_FILE`.

    Raises:
        UnreachableError: when neither leads to one.
        UsageError: when there is no token for it, or a file cannot be used.
    """
    told = named.get()
    near = _read(state_dir / "url")
    url = told.url or os.environ.get("CONTROLPLANE_URL", "") or near
    if not url:
        raise UnreachableError(
            f"no control plane runs on {state_dir}", "it has no file `url`",
            "start one with `controlplane serve`, name its --state-dir, or give --url and --token-file",
        )  # fmt: skip
    url = url.rstrip("/")
    is_near = url == near.rstrip("/")
    try:
        token = _token(told) or (_read(state_dir / "token") if is_near else "")
        pinned = state_dir / "server.pem" if is_near and url.startswith("https:") and not told.ca_file else None
        environment = {**os.environ, CA_FILE: str(told.ca_file)} if told.ca_file else os.environ
        trusted = client_context(environment, pinned) if url.startswith("https:") else None
    except OSError as error:
        raise UsageError("a file for talking to the control plane cannot be used", str(error), "mend it") from error
    if not token:
        raise UsageError(
            f"no token for {url}", "reading needs a viewer's, levers need an operator's",
            "give --token-file, or set CONTROLPLANE_TOKEN or CONTROLPLANE_TOKEN_FILE",
        )  # fmt: skip
    return Client(url, token, trusted)


def _token(told: Remote) -> str:
    """Return the token that the line or the environment names; empty without one.

    Raises:
        OSError: when its file cannot be read.
    """
    named_file = str(told.token_file or "") or os.environ.get("CONTROLPLANE_TOKEN_FILE", "")
    if told.token_file or not os.environ.get("CONTROLPLANE_TOKEN"):
        return Path(named_file).read_text(encoding="utf-8").strip() if named_file else ""
    return os.environ["CONTROLPLANE_TOKEN"]


def _read(path: Path) -> str:
    """Return a file's text; an empty one when it is not there."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
