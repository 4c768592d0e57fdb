"""A Grafana's HTTP API, through grafana-client: dashboards and their folder are written only where they differ.

Every write names the version it was read at, so that nobody's change is run over unseen. Called by the command line.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException
from requests.exceptions import JSONDecodeError, RequestException, SSLError, TooManyRedirects

from controlplane.errors import ControlplaneError, UnreachableError, UsageError
from controlplane.render.dashboards.delivery import holds, stamped

TIMEOUT_S = 15.0
"""The most that one request may take to connect, and then to answer."""

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the dashboards go."""

    uid: str
    title: str
    """Of a folder that has to be made; one that is there keeps its own."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What became, or would become, of one thing in a Grafana."""

    kind: str
    """`new`, `changed`, `moved` (from another folder) or `same`."""
    title: str
    url: str
    """Where it is, as far as it is known."""


class Grafana:
    """One Grafana."""

    def __init__(self, url: str, token: str) -> None:
        """Take its address and the token of a service account; asks nothing yet.

        Raises:
            UsageError: when the address is none, or holds a password.
        """
        self.url = url.rstrip("/")
        try:
            address = urlsplit(self.url)
            address.port  # noqa: B018 - raises for a port that is none
        except ValueError as error:
            raise _not_an_address(url, str(error)) from error
        if address.scheme not in ("http", "https") or not address.hostname or address.query:
            raise _not_an_address(url, "it is not http://HOST or https://HOST, with or without a path")
        if address.username or address.password:
            raise UsageError(
                "the address of Grafana holds a name or a password", "addresses end up in logs",
                "take them out; give the token of a service account by GRAFANA_TOKEN or --token-file",
            )  # fmt: skip
        self._api = GrafanaApi.from_url(f"{self.url}/", credential=token, timeout=TIMEOUT_S)
        self._api.client.s.max_redirects = 0  # A redirected POST would be sent as a GET.

    def push(
        self, dashboards: Sequence[Mapping[str, Any]], folder: Folder, message: str, *, dry_run: bool = False
    ) -> Iterator[Pushed]:
        """Bring dashboards into a folder, one after the other; what is there already is left alone.

        Args:
            dashboards: as they are rendered, each with its uid.
            folder: where they go; it is made where it is missing.
            message: what Grafana's history of versions says.
            dry_run: write nothing, only say what would be.

        Yields:
            The folder, then each dashboard, when it is as it should be.

        Raises:
            ControlplaneError: with the way out, when Grafana does not answer or refuses.
        """
        yield self._folder(folder, dry_run=dry_run)
        for dashboard in dashboards:
            yield self._dashboard(stamped(dashboard), folder, message, dry_run=dry_run)

    def _folder(self, folder: Folder, *, dry_run: bool) -> Pushed:
        what = f"folder {folder.title}"
        found = self._found(lambda: self._api.folder.get_folder(folder.uid))
        if found is not None:
            return Pushed("same", f"folder {found.get('title', folder.title)}", self._link(found))
        if dry_run:
            return Pushed("new", what, "")
        with self._told(what):
            made = _object(self._api.folder.create_folder(folder.title, uid=folder.uid))
        return Pushed("new", what, self._link(made))

    def _dashboard(self, wanted: dict[str, Any], folder: Folder, message: str, *, dry_run: bool) -> Pushed:
        title = str(wanted["title"])
        found = self._found(lambda: self._api.dashboard.get_dashboard(wanted["uid"]))
        kind, stored, meta = "new", {"id": None, "version": 0}, {}
        if found is not None:
            stored, meta = _object(found.get("dashboard")), _object(found.get("meta"))
            moved = meta.get("folderUid", "") != folder.uid
            kind = "changed" if not holds(stored, wanted) else "moved" if moved else "same"
        if kind == "same" or dry_run:
            return Pushed(kind, title, self._link(meta))
        sent = {
            "dashboard": {**wanted, "id": stored.get("id"), "version": stored.get("version", 0)},
            "folderUid": folder.uid, "message": message, "overwrite": False,
        }  # fmt: skip
        with self._told(f"dashboard {title}"):
            return Pushed(kind, title, self._link(_object(self._api.dashboard.update_dashboard(sent))))

    def _found(self, ask: Callable[[], Any]) -> dict[str, Any] | None:
        """Return what is asked for; None when there is no such thing."""
        with self._told("what it has"):
            try:
                return _object(ask())
            except GrafanaClientError as error:
                if error.status_code == _NOT_FOUND and isinstance(error.response, Mapping):
                    return None
                raise

    def _link(self, thing: Mapping[str, Any]) -> str:
        path = str(thing.get("url", ""))
        address = urlsplit(self.url)
        return f"{address.scheme}://{address.netloc}{path}" if path.startswith("/") else path

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn what Grafana, or the way to it, has against a request into an error with the way out."""
        try:
            yield
        except GrafanaException as error:
            raise _refused(self.url, what, error) from error
        except JSONDecodeError as error:
            raise _no_grafana(self.url, str(error)) from error
        except TooManyRedirects as error:
            raise UnreachableError(
                f"{self.url} sends elsewhere", str(error), "name the address that it leads to (https, a path, a login?)"
            ) from error
        except SSLError as error:
            raise UnreachableError(
                f"the certificate of {self.url} cannot be trusted", str(error),
                "name the file of its authority in REQUESTS_CA_BUNDLE",
            ) from error  # fmt: skip
        except RequestException as error:
            raise UnreachableError(
                f"no Grafana answers at {self.url}", str(error), "see whether it runs, and whether this is its address"
            ) from error
        except ValueError as error:
            raise _no_grafana(self.url, str(error)) from error


def _object(answer: Any) -> dict[str, Any]:
    """Return an answer that has to be a JSON object."""
    if not isinstance(answer, dict):
        raise ValueError(f"the answer is no JSON object: {str(answer)[:80]!r}")  # noqa: TRY004 - a foreign answer
    return answer


def _not_an_address(url: str, why: str) -> UsageError:
    return UsageError(f"{url!r} is no address of a Grafana", why, "such as https://grafana.example.com")


def _no_grafana(url: str, why: str) -> UnreachableError:
    return UnreachableError(f"what answers at {url} is no Grafana", why, "name Grafana's own address, and its path")


def _refused(url: str, what: str, error: GrafanaException) -> ControlplaneError:
    """Say what a refusal means, by its status and by what Grafana says about it."""
    said = error.response if isinstance(error.response, Mapping) else {}
    reason = str(said.get("message") or error.message or error)[:300]
    mismatch = said.get("status") == "version-mismatch"
    if error.status_code == 400 and "provisioned" in reason.lower():
        return ControlplaneError(
            f"Grafana keeps {what} from a file of its own", reason,
            "take it out of Grafana's provisioning, or render there instead of pushing",
        )  # fmt: skip
    known = {
        401: ("Grafana does not know this token", "make one for a service account, and name it anew"),
        403: (f"the token may not read or write {what}",
              "give its service account the role Editor, or dashboards:create, dashboards:write and folders:create"),
        404: (f"there is no API of Grafana at {url}", "name Grafana's own address, and its path where it has one"),
        409: (f"something in Grafana stands in the way of {what}", "see what it says; push again"),
        412: ((f"somebody changed {what} while it was pushed", "push again: it is read anew") if mismatch else
              (f"something in Grafana stands in the way of {what}",
               "rename or remove what has this title in the folder, or choose another with --folder")),
    }  # fmt: skip
    status = error.status_code
    text, fix = known.get(status, (f"Grafana did not take {what} (status {status})", "see Grafana's own log"))
    return ControlplaneError(text, reason, fix)
