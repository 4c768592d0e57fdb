"""How one control-plane process is run: where it listens and where it keeps its state. Set on the command line."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
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
class OidcFlags:
    """With which identity provider people log in, as the command line says."""

    issuer: str
    client_id: str
    client_secret_file: Path | None
    role_claim: str = "groups"
    roles: tuple[str, ...] = ()
    """`role=value` for each value of the claim that stands for a role."""


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
    scrape: str = "loopback"
    """Who may read `/metrics` and `/sd` without a token: `loopback`, `anyone` or `token` (nobody)."""
    tls_cert: Path | None = None
    """PEM file with the server's certificate and what vouches for it; with it the server speaks HTTPS only."""
    tls_key: Path | None = None
    """PEM file with the certificate's private key."""
    tls_client_ca: Path | None = None
    """PEM file with the authorities whose clients may connect at all; none asks clients for no certificate."""
    insecure_http: bool = False
    """Lets the server listen beyond loopback without TLS: where a proxy or a mesh in front of it encrypts."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses whose X-Forwarded-For is believed; without one the audit log names the proxy as the source."""

    public_url: str = ""
    """Where browsers reach the console through a proxy; empty: where it listens."""
    oidc: OidcFlags | None = None
    """None: people log in with tokens only."""

    @property
    def secure(self) -> bool:
        """Whether the server speaks HTTPS."""
        return self.tls_cert is not None

    @property
    def browsers_use_https(self) -> bool:
        """Whether cookies may be bound to HTTPS: ours, or that of a proxy in front."""
        return self.secure or self.public_url.startswith("https://")

    def check(self) -> None:
        """Refuse settings that would send tokens over a network in the clear, or that do not fit together.

        Raises:
            UsageError: with the way out.
        """
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("TLS needs a certificate and its key", "one of them is missing", "give both files")
        if self.tls_client_ca and not self.secure:
            raise UsageError(
                "clients cannot be asked for certificates without TLS", "the server would speak plain HTTP",
                "give --tls-cert and --tls-key, too",
            )  # fmt: skip
        if not (self.secure or self.insecure_http or is_loopback(self.host)):
            raise UsageError(
                f"listening on {self.host} without TLS", "tokens and sessions would cross the network readable",
                "give --tls-cert and --tls-key, or --insecure-http where something in front encrypts",
            )  # fmt: skip

    @property
    def pinned_file(self) -> Path:
        """The server's own certificate, for the command line on this machine and for drills' children."""
        return self.state_dir / "server.pem"

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


def is_loopback(host: str) -> bool:
    """Tell whether a listening address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def state_dir_beside(page: Path) -> Path:
    """Return where the state of a policy page is kept unless told otherwise: `state/` beside the page."""
    return page.parent / "state"
