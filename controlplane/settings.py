"""How one control-plane process is run: where it listens and where it keeps its state. Set on the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from controlplane.errors import UsageError

DEFAULT_PORT = 8600

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_LEASE = re.compile(rf"kubernetes:(?:({_LABEL})/)?({_LABEL}(?:\.{_LABEL})*)")


@dataclass(frozen=True, slots=True)
class LeasePlace:
    """A Lease of Kubernetes."""

    name: str
    namespace: str = ""
    """Empty: the pod's own, or that of the kubeconfig's context."""


def read_leader(text: str) -> LeasePlace | None:
    """Read how the one in charge is found: `database` (None), or `kubernetes:[NAMESPACE/]NAME`.

    Raises:
        UsageError: when it is neither.
    """
    if text == "database":
        return None
    found = _LEASE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"`{text}` is no way to find the one in charge", "it is `database` or `kubernetes:[NAMESPACE/]NAME`",
            "write one such as --leader kubernetes:inference/controlplane",
        )  # fmt: skip
    return LeasePlace(found[2], found[1] or "")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Everything `controlplane serve` can be told besides the policy."""

    state_dir: Path
    """Holds the database, the token, the journals and the address of the running server."""
    experiments_dir: Path
    host: str = "127.0.0.1"
    """Loopback unless told otherwise."""
    port: int = DEFAULT_PORT
    """0 chooses a free one."""

    database_url: str = ""
    """SQLAlchemy URL of a database that several control planes share; empty takes the file in the state directory."""

    lease: LeasePlace | None = None
    """The Lease of Kubernetes that says which replica is in charge; None: a lease in the database."""

    webhook_token: Path | None = None
    """File of the token that Alertmanager sends; None takes the one in the state directory."""

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.state_dir / "controlplane.db"

    @property
    def token_file(self) -> Path:
        """The operator's token, readable by the owner only."""
        return self.state_dir / "token"

    @property
    def webhook_token_file(self) -> Path:
        """The token of those who post alerts: it moves no lever and reads nothing."""
        return self.webhook_token or self.state_dir / "webhook-token"

    @property
    def address_file(self) -> Path:
        """Where a running server writes its URL, for the command line."""
        return self.state_dir / "url"

    @property
    def learnt_file(self) -> Path:
        """Error budgets and what is usual at which hour."""
        return self.state_dir / "learnt.json"

    @property
    def journals(self) -> Path:
        """Chaos Toolkit's journals and logs."""
        return self.state_dir / "journals"


def state_dir_beside(page: Path) -> Path:
    """Return where the state of a policy page is kept unless told otherwise: `state/` beside the page."""
    return page.parent / "state"
