"""`controlplane dashboards`: bring the dashboards of a policy page into a Grafana."""

import os
from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer(no_args_is_help=True, help="Bring the dashboards of a policy page into a Grafana.")

_HOW = "make a token for a service account in Grafana (Administration > Service accounts, role Editor)"


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.add_typer(group, name="dashboards")


@group.command()
def push(
    page: Annotated[Path, typer.Argument(help="The policy page.", show_default=True)] = Path("controlplane.yaml"),
    grafana: Annotated[
        str, typer.Option("--grafana", envvar="GRAFANA_URL", help="Grafana's address, with its path if it has one.")
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="A file with the token of a service account; without: GRAFANA_TOKEN."),
    ] = None,
    folder: Annotated[str, typer.Option("--folder", help="The uid of the folder; made where it is missing.")] = "",
    folder_title: Annotated[str, typer.Option("--folder-title", help="The title of a folder that is made.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be written.")] = False,
) -> None:
    """Write the dashboards that a Grafana does not have as the page says; the others are left alone."""
    import json

    import controlplane
    from controlplane.cli.output import out
    from controlplane.errors import UsageError
    from controlplane.policy.load import load
    from controlplane.render.artefacts import render
    from controlplane.render.dashboards import provisioning
    from controlplane.runtime.grafana import Folder, Grafana

    if not grafana:
        raise UsageError("no Grafana is named", "", "name it with --grafana or GRAFANA_URL")
    server = Grafana(grafana, _token(token_file))
    loaded = load(page)
    rendered = render(loaded.policy, (), loaded.path.name)
    made = [json.loads(rendered[path]) for path in sorted(rendered) if Path(path).match("dashboards/*.json")]
    into = Folder(folder or provisioning.FOLDER_UID, folder_title or provisioning.FOLDER)
    message = f"{loaded.path.name}, controlplane {controlplane.__version__}"
    written = 0
    for pushed in server.push(made, into, message, dry_run=dry_run):
        written += pushed.kind != "same"
        out.print(f"{pushed.kind:8} {pushed.title}  {pushed.url}".rstrip(), markup=False, soft_wrap=True)
    out.print(f"{len(made)} dashboards and their folder, {written} {'to be written' if dry_run else 'written'}")


def _token(file: Path | None) -> str:
    """Return the token of a service account, from a file or else from the environment.

    Never from the command line, where everybody on the machine could read it.

    Raises:
        UsageError: when there is none.
    """
    from controlplane.errors import UsageError

    if file:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the token in {file}", str(error), _HOW) from error
    else:
        token = os.environ.get("GRAFANA_TOKEN", "").strip()
    if not token:
        where = str(file) if file else "GRAFANA_TOKEN"
        raise UsageError(
            "there is no token for Grafana", f"{where} is empty", f"{_HOW}; set GRAFANA_TOKEN, or name a --token-file"
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError("this is no token of Grafana's", "it has spaces, line breaks or unprintable characters", _HOW)
    return token
