"""`controlplane serve`, `status`, `heal`: running the control plane and talking to it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_PAGE = Path("run/controlplane.yaml")
DEFAULT_STATE = Path("run/state")

PIPED_COLUMNS = 200
"""How wide a table is where no terminal says."""

StateDir = Annotated[
    Path, typer.Option("--state-dir", envvar="CONTROLPLANE_STATE_DIR", help="State directory of the control plane.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Scrape(StrEnum):
    """Who may scrape without a token."""

    LOOPBACK = "loopback"
    ANYONE = "anyone"
    TOKEN = "token"  # noqa: S105 - the name of a choice


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(serve)
    app.command()(status)
    app.command()(heal)


def experiments_beside_code() -> Path:
    """Return where the authored experiments are: `experiments/` here, or the one beside the installed code."""
    here = Path("experiments")
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / "experiments"


def serve(
    page: Annotated[Path, typer.Argument(help="The policy page.")] = DEFAULT_PAGE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8600,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where state is kept.", show_default="`state/` beside the page")
    ] = None,
    experiments: Annotated[Path | None, typer.Option(help="Directory of Chaos Toolkit experiments.")] = None,
    database: Annotated[
        str,
        typer.Option(
            envvar="CONTROLPLANE_DATABASE",
            help="URL of a database that several control planes share, one of them in charge.",
            show_default="SQLite in the state directory",
        ),
    ] = "",
    leader: Annotated[
        str,
        typer.Option(
            envvar="CONTROLPLANE_LEADER",
            help="How the replica in charge is found: `database`, or `kubernetes:[NAMESPACE/]NAME` for a Lease.",
        ),
    ] = "database",
    webhook_token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the token that Alertmanager sends with its webhooks; made where it is not there.",
            show_default="`webhook-token` in the state directory",
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the server's certificate: HTTPS only.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM file with the authorities whose clients may connect at all (mTLS).")
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Allow plain HTTP beyond loopback: something in front encrypts.")
    ] = False,
    scrape: Annotated[
        Scrape, typer.Option(help="Who may read /metrics and /sd without a token; `token` means nobody.")
    ] = Scrape.LOOPBACK,
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address of a proxy whose X-Forwarded-For is believed; may be repeated.")
    ] = None,
    oidc_issuer: Annotated[str, typer.Option(help="Address of an OpenID Connect provider for the console.")] = "",
    oidc_client_id: Annotated[str, typer.Option(help="What the provider calls this control plane.")] = "",
    oidc_client_secret_file: Annotated[Path | None, typer.Option(help="File with the secret it gave us.")] = None,
    oidc_role_claim: Annotated[str, typer.Option(help="The claim that says what somebody may do.")] = "groups",
    oidc_role: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=VALUE of that claim; may be repeated.", show_default="ROLE=controlplane-ROLE"),
    ] = None,
    public_url: Annotated[
        str, typer.Option(help="Where browsers reach the console through a proxy.", show_default="where it listens")
    ] = "",
) -> None:
    """Watch the fleet of a policy page, move its levers, run its drills, serve API and console."""
    from controlplane.policy.load import load
    from controlplane.runtime.server import serve as run_server
    from controlplane.settings import OidcFlags, ServeSettings, read_leader, state_dir_beside

    loaded = load(page)
    oidc = None
    if oidc_issuer:
        oidc = OidcFlags(
            oidc_issuer, oidc_client_id, oidc_client_secret_file, oidc_role_claim, tuple(oidc_role or ())
        )  # fmt: skip
    settings = ServeSettings(
        state_dir or state_dir_beside(page),
        experiments or experiments_beside_code(),
        host=host,
        port=port,
        database_url=database,
        lease=read_leader(leader),
        webhook_token=webhook_token_file,
        scrape=scrape.value,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        insecure_http=insecure_http,
        trusted_proxies=tuple(trusted_proxy or ()),
        public_url=public_url,
        oidc=oidc,
    )
    raise typer.Exit(run_server(loaded, settings))


def status(
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: seconds between two looks.", min=0.2)] = 1.0,
) -> None:
    """Show how the service stands: level, pools, every signal with its evidence, rows."""
    import json

    from rich.console import Console

    from controlplane.cli.client import connect
    from controlplane.cli.output import out
    from controlplane.cli.standing import standing_table

    if watch:
        _watch(state_dir, every)
        return
    standing = connect(state_dir).get("/api/v1/standing")
    if as_json:
        out.print_json(json.dumps(standing))
    else:
        wide = out if out.is_terminal else Console(width=PIPED_COLUMNS, highlight=False)
        wide.print(standing_table(standing, wide.width))


def _watch(state_dir: Path, every_s: float) -> None:
    """Show the standing until Ctrl-C; a control plane that goes away is waited for, and said."""
    import time

    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.text import Text

    from controlplane.cli.client import connect
    from controlplane.cli.output import out
    from controlplane.cli.standing import standing_table
    from controlplane.errors import UnreachableError

    shown: RenderableType = standing_table(connect(state_dir).get("/api/v1/standing"), out.width)
    with Live(shown, console=out, screen=out.is_terminal, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            time.sleep(every_s)
            try:
                shown = standing_table(connect(state_dir).get("/api/v1/standing"), out.width)
                live.update(shown, refresh=True)
            except UnreachableError as error:
                live.update(Group(Text(f"{error.what}; what it said last:", "bold red"), shown), refresh=True)


def heal(
    page: Annotated[Path, typer.Argument(help="The policy page.")] = DEFAULT_PAGE,
    state_dir: Annotated[
        Path | None, typer.Option(help="Where state is kept.", show_default="`state/` beside the page")
    ] = None,
) -> None:
    """End every fault that is leased and print what was done; works with the control plane dead, too."""
    from controlplane.cli.client import connect
    from controlplane.cli.output import out
    from controlplane.errors import UnreachableError
    from controlplane.settings import state_dir_beside

    where = state_dir or state_dir_beside(page)
    try:
        done: Any = connect(where).post("/api/v1/heal", {})["healed"]
    except UnreachableError:
        from controlplane.policy.load import load
        from controlplane.runtime.heal import heal_offline

        done = heal_offline(load(page), where)
    for line in done:
        out.print(line)
    out.print(f"{len(done)} fault{'' if len(done) == 1 else 's'} leased")
