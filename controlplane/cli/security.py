"""`controlplane token` and `controlplane audit`: who may do what, and who did what."""

from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

tokens = typer.Typer(name="token", help="Hand out tokens, list them, take them back.", no_args_is_help=True)
audits = typer.Typer(name="audit", help="Read the audit log and check its chain.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    tokens.command()(create)
    tokens.command("list")(list_tokens)
    tokens.command()(revoke)
    audits.command("list")(list_rows)
    audits.command()(verify)
    app.add_typer(tokens)
    app.add_typer(audits)


def create(
    name: Annotated[str, typer.Argument(help="Whose it is, such as `prometheus` or `ann`.")],
    role: Annotated[str, typer.Option(help="viewer, operator, admin or webhook.")],
    expires_in: Annotated[
        str | None, typer.Option(help="How long it holds, such as 90d.", show_default="until it is revoked")
    ] = None,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Hand out a token. It is printed once, on standard output, and kept nowhere."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import err

    body: dict[str, Any] = {"name": name, "role": role}
    made = connect(state_dir).post("/api/v1/tokens", body | ({"expires_in": expires_in} if expires_in else {}))
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo(made["token"])
    err.print(f"[dim]{role} token {made['id']} for {name}; it is shown this once[/]")


def list_tokens(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List every token that was handed out, without its secret."""
    import json

    from rich.table import Table

    from controlplane.cli.client import connect
    from controlplane.cli.output import clock_time, out

    found = connect(state_dir).get("/api/v1/tokens")
    if as_json:
        out.print_json(json.dumps(found))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "name", "role", "created", "by", "last used", "expires", "revoked"):
        table.add_column(column)
    for token in found:
        moments = [clock_time(token[key]) for key in ("last_used_at", "expires_at", "revoked_at")]
        table.add_row(
            token["id"], token["name"], token["role"], clock_time(token["created_at"]), token["created_by"], *moments
        )
    _wide().print(table)


def _wide() -> Any:
    """Return where tables are printed: the terminal, or a wide page where there is none."""
    from rich.console import Console

    from controlplane.cli.output import out
    from controlplane.cli.plane import PIPED_COLUMNS

    return out if out.is_terminal else Console(width=PIPED_COLUMNS, highlight=False)


def revoke(
    token_id: Annotated[str, typer.Argument(help="Its id, as `controlplane token list` shows it.")],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Take a token back, and end every session that it opened."""
    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    done = connect(state_dir).post(f"/api/v1/tokens/{token_id}/revoke", {})
    print_json(done) if as_json else out.print(f"revoked {done['revoked']}")


def list_rows(
    state_dir: StateDir = DEFAULT_STATE,
    limit: Annotated[int, typer.Option(help="How many rows.", min=1, max=1000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List the newest rows of the audit log first."""
    import json

    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.client import connect
    from controlplane.cli.output import clock_time, out

    rows = connect(state_dir).every("/api/v1/audit", limit)
    if as_json:
        out.print_json(json.dumps(rows))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("row", "at", "who", "from", "what", "outcome", "why"):
        table.add_column(column)
    for row in rows:
        why = "; ".join(text for text in (row["why"], row["detail"]) if text)
        who = f"{row['who']} ({row['role']})" if row["role"] else row["who"]
        cells = (str(row["number"]), clock_time(row["at"]), who, row["source"], row["action"], row["outcome"], why)
        table.add_row(*map(Text, cells))
    _wide().print(table)


def verify(
    state_dir: StateDir = DEFAULT_STATE,
    head: Annotated[
        str, typer.Option(help="A head that was noted earlier, as NUMBER:HASH; shows a log that was written anew.")
    ] = "",
    database: Annotated[
        str, typer.Option(envvar="CONTROLPLANE_DATABASE", help="Check this database instead of asking a server.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Follow the audit log's chain; exit status 1 with every place where a row was changed, removed or moved."""
    import json

    from controlplane.cli.output import err, out

    found = _checked(state_dir, head, database)
    if as_json:
        out.print_json(json.dumps(found))
    else:
        for broken in found["breaks"]:
            err.print(f"[bold red]broken[/] at row {broken['number']}: {broken['what']}", highlight=False)
        out.print(f"{found['rows']} rows, {'the chain holds' if found['holds'] else 'the chain is broken'}")
        out.print(f"head {found['head']}", soft_wrap=True)
    raise typer.Exit(0 if found["holds"] else 1)


def _checked(state_dir: Path, head: str, database: str) -> Any:
    """Ask the running control plane; without one, or where a database is named, look ourselves."""
    from controlplane.cli.client import connect
    from controlplane.errors import UnreachableError

    if not database:
        try:
            return connect(state_dir).get(f"/api/v1/audit/check?noted={head}")
        except UnreachableError:
            pass
    from controlplane.runtime.doors import check_offline

    return check_offline(state_dir, head, database)
