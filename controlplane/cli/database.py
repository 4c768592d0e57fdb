"""`controlplane database`: which schema a database has, and the way back to an older version of the software."""

from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

databases = typer.Typer(
    name="database", help="Look at a database's schema, and take it back for an older version.", no_args_is_help=True
)

Database = Annotated[
    str,
    typer.Option("--database", envvar="CONTROLPLANE_DATABASE", help="Its URL.", show_default="SQLite in --state-dir"),
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    databases.command()(show)
    databases.command()(downgrade)
    app.add_typer(databases)


def show(database: Database = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Say which schema it has, and which ones this version knows; changes nothing."""
    import json

    from controlplane.cli.output import out
    from controlplane.store.revisions import standing

    found = standing(_url(database, state_dir))
    if as_json:
        told = {"schema": found.revision, "known": found.known, "from_the_future": found.from_the_future}
        out.print_json(json.dumps(told))
        return
    out.print(f"schema {found.revision or 'none'}; this version knows {found.known[0]} to {found.known[-1]}")
    if found.from_the_future:
        out.print("a newer version has made it: this one refuses to start on it")


def downgrade(
    to: Annotated[str, typer.Option(help="The newest schema that the older version knows.")],
    database: Database = "",
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Take it back to an older schema, with no control plane running; what only newer schemas keep is lost."""
    from controlplane.cli.output import out
    from controlplane.runtime.state_dir import held
    from controlplane.settings import ServeSettings
    from controlplane.store.revisions import downgrade as take_back

    if database:
        done = take_back(database, to)
    else:
        with held(ServeSettings(state_dir, experiments_dir=state_dir)):
            done = take_back(_url("", state_dir), to)
    for line in done:
        out.print(line)


def _url(database: str, state_dir: Path) -> str:
    from controlplane.settings import ServeSettings
    from controlplane.store.database import sqlite_url

    return database or sqlite_url(ServeSettings(state_dir, experiments_dir=state_dir).database)
