"""Talking to a running control plane, with the standard library: a command must start fast."""

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from controlplane.cli.remote import Remote, named
from controlplane.errors import ControlplaneError, NotAllowedError, NotNowError, UnreachableError, UsageError
from controlplane.tls import CA_FILE, client_context

TIMEOUT_S = 30.0
MOST_OF_A_PAGE = 500


@dataclass(frozen=True, slots=True)
class Client:
    """A running control plane."""

    url: str
    token: str = field(repr=False)
    timeout_s: float = TIMEOUT_S
    trusted: ssl.SSLContext | None = field(default=None, compare=False)
    """Whom to believe that they are it; the system's authorities when none is given."""

    def get(self, path: str) -> Any:
        """Return what a path says."""
        return self._call("GET", path, None)

    def text(self, path: str) -> str:
        """Return what a path says, as it says it."""
        return self._ask("GET", path, None).decode()

    def every(self, path: str, limit: int) -> list[Any]:
        """Return so many items of a list, page after page.

        Args:
            path: of the list, with what else is asked.
            limit: how many at most.
        """
        found: list[Any] = []
        onward = f"{path}{'&' if '?' in path else '?'}limit={min(limit, MOST_OF_A_PAGE)}"
        while onward and len(found) < limit:
            body, headers = self._answer("GET", onward, None)
            page = self._read(body)
            found += page["alerts"] if isinstance(page, dict) else page
            onward = _next(headers.get("link", ""))
        return found[:limit]

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give what happens as it happens: its kind, and what it is about; for as long as the server runs."""
        with self._open("GET", "/events", None, None) as stream:
            kind = ""
            try:
                for line in stream:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind != "change":
                        yield kind, self._read(value.encode())
            except OSError as error:
                raise self._unreachable(error) from error
        raise self._unreachable(EOFError("it ended the stream"))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask for something to be done and return the answer."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        return self._read(self._ask(method, path, body))

    def _read(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError as error:
            raise self._unreachable(error) from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> bytes:
        return self._answer(method, path, body)[0]

    def _answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[bytes, Message]:
        try:
            with self._open(method, path, body, self.timeout_s) as response:
                return response.read(), response.headers
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _open(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float | None) -> HTTPResponse:
        try:
            request = urllib.request.Request(  # noqa: S310 - the operator names the address
                self.url + path,
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
            )
            opened: HTTPResponse = urllib.request.urlopen(  # noqa: S310
                request, timeout=timeout_s, context=self.trusted
            )
        except urllib.error.HTTPError as error:
            raise _problem(error) from error
        except (OSError, ValueError) as error:
            raise self._unreachable(error) from error
        return opened

    def _unreachable(self, error: Exception) -> UnreachableError:
        fix = "start one with `controlplane serve`"
        if isinstance(getattr(error, "reason", error), ssl.SSLError):
            fix = "give --ca-file: who vouches for its certificate; or look whether the address is the right one"
        return UnreachableError(f"no control plane answers at {self.url}", str(error), fix)


_KINDS: Mapping[int, type[ControlplaneError]] = {
    400: UsageError, 404: UsageError, 422: UsageError,
    401: NotAllowedError, 403: NotAllowedError,
    409: NotNowError,
}  # fmt: skip


def _next(link: str) -> str:
    """Return where a `Link` header leads; empty without one."""
    target, _, relation = link.partition(">;")
    return target.removeprefix("<") if relation.strip() == 'rel="next"' else ""


def _problem(error: urllib.error.HTTPError) -> ControlplaneError:
    """Turn a problem document back into the error it was made from."""
    try:
        problem = json.loads(error.read())
    except (OSError, ValueError):
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    kind = _KINDS.get(error.code, ControlplaneError)
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
    return Client(url, token, trusted=trusted)


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
