"""`controlplane incident`: what went wrong, what was done about it, and what came of it."""

from typing import Annotated, Any

import typer

from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="What went wrong, and what was done about it.", no_args_is_help=True)
    group.command("list")(list_incidents)
    group.command("report")(report)
    app.add_typer(group, name="incident")


def list_incidents(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """List the incidents on record, newest first."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    client = connect(state_dir)
    found = client.get("/api/v1/incidents")
    if as_json:
        out.print_json(json.dumps(found))
    elif found:
        out.print(incident_table([item["incident"] for item in found]))
        out.print(f"pages: {client.url}/incidents/ID", markup=False)
    else:
        out.print("No incident is on record: one opens by itself when a row engages")


def report(
    incident: Annotated[str, typer.Argument(help="The incident's id, as `controlplane incident list` shows it.")],
    html: Annotated[
        bool, typer.Option("--html", help="Print a page with charts that needs nothing else, not Markdown.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Print the report of one incident: timeline, signals, phase times, error budget spent, follow-ups."""
    import json
    from urllib.parse import quote

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    found = connect(state_dir).get(f"/api/v1/incidents/{quote(incident, safe='')}/report")
    if as_json:
        out.print_json(json.dumps(found))
    else:
        typer.echo(found["html"] if html else found["markdown"], nl=False)


def incident_table(incidents: list[dict[str, Any]]) -> Any:
    """Draw incidents, one a line; times are since the first evidence."""
    from datetime import datetime

    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.output import clock_time, seconds

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("incident", "level", "state", "detected", "mitigated", "resolved", "drill"):
        table.add_column(column, no_wrap=True)
    styles = {"open": "bold red", "mitigated": "yellow", "resolved": "green"}

    def since(incident: dict[str, Any], moment: str) -> str:
        if not incident[moment]:
            return seconds(None)
        took = datetime.fromisoformat(incident[moment]) - datetime.fromisoformat(incident["detected_at"])
        return seconds(took.total_seconds())

    for incident in incidents:
        state = Text(incident["state"], styles.get(incident["state"], ""))
        times = [since(incident, "mitigated_at"), since(incident, "resolved_at")]
        table.add_row(
            Text(incident["id"]), incident["level"], state, clock_time(incident["detected_at"]), *times,
            Text(incident["drill_id"] or "-"),
        )  # fmt: skip
    return table
