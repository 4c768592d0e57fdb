"""`controlplane fleet`, `signals`, `matrix`, `receipt`, `alerts`, `leases`, `runbook`, `watch`: looking at a server."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from controlplane.cli import complete
from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

Limit = Annotated[int, typer.Option(help="How many at most; the newest first.", min=1)]
Pool = Annotated[str, typer.Option(help="Only this pool.", autocompletion=complete.pools)]

receipts_app = typer.Typer(help="What was done, by which lever, and how it ended.", no_args_is_help=True)
runbooks_app = typer.Typer(help="The runbooks, with what people wrote on them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (fleet, signals, matrix, alerts, leases, experiments, watch):
        app.command()(command)
    receipts_app.command("list")(list_receipts)
    receipts_app.command("show")(show_receipt)
    app.add_typer(receipts_app, name="receipt")
    runbooks_app.command("list")(list_runbooks)
    runbooks_app.command("show")(show_runbook)
    app.add_typer(runbooks_app, name="runbook")


def fleet(
    state_dir: StateDir = DEFAULT_STATE,
    pool: Pool = "",
    state: Annotated[str, typer.Option(help="Only those that are up, down or unknown.")] = "",
    node: Annotated[str, typer.Option(help="Only those on this node.")] = "",
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """List the endpoints with their state, their node, and the verdict on their pool."""
    asked = _query(pool=pool, state=state, node=node)
    _list(
        state_dir, f"/api/v1/fleet/endpoints{asked}", limit, as_json,
        ("endpoint", "pool", "state", "node", "verdict", "since", "url", "detail"),
        lambda one: (one["name"], one["pool"], one["state"], one["node"], one["verdict"], _at(one["since"]),
                     one["url"], one["detail"]),
    )  # fmt: skip


def signals(
    state_dir: StateDir = DEFAULT_STATE,
    pool: Pool = "",
    signal: Annotated[str, typer.Option(help="Only this signal.")] = "",
    limit: Limit = 1000,
    as_json: AsJson = False,
) -> None:
    """List what every signal of every pool is now, beside its thresholds."""
    from controlplane.signals.sample import spell

    def row(one: Mapping[str, Any]) -> tuple[str, ...]:
        limits = one["threshold"]
        value = one["now"]["value"]
        levels = [spell(one["signal"], limits[name]) for name in ("healthy", "warn", "breach")] if limits else [""] * 3
        return (
            one["pool"],
            one["signal"],
            "" if value is None else spell(one["signal"], value),
            one["now"]["band"],
            *levels,
        )

    heads = ("pool", "signal", "now", "band", "healthy", "warn", "breach")
    _list(state_dir, f"/api/v1/signals{_query(pool=pool, signal=signal)}", limit, as_json, heads, row)


def matrix(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Say which level is in force, and how each row of the matrix stands."""
    from controlplane.cli.client import connect
    from controlplane.cli.lever import level_lines
    from controlplane.cli.output import out, print_json

    found = connect(state_dir).get("/api/v1/matrix")
    if as_json:
        print_json(found)
        return
    for line in level_lines(found):
        out.print(line)
    for level, why in found["not_armed"].items():
        out.print(f"  {level} is not armed: {why}", style="dim", markup=False)


def alerts(state_dir: StateDir = DEFAULT_STATE, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List what fires by our books, what changed last first."""
    heads = ("alert", "service", "since", "severity")
    _list(
        state_dir, "/api/v1/alerts", limit, as_json, heads,
        lambda one: (one["name"], one["service"], _at(one["starts_at"]), one["labels"].get("severity", "")),
    )  # fmt: skip


def leases(state_dir: StateDir = DEFAULT_STATE, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List the faults in force, each with its end."""
    heads = ("fault", "endpoint", "state", "ends by itself", "drill")
    _list(
        state_dir, "/api/v1/leases", limit, as_json, heads,
        lambda one: (one["kind"], one["endpoint"]["name"], one["state"], _at(one["deadline"]), one["drill_id"]),
    )  # fmt: skip


def experiments(state_dir: StateDir = DEFAULT_STATE, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List the experiments that can be run as drills, and what is wrong with those that cannot."""

    def row(one: Mapping[str, Any]) -> tuple[str, ...]:
        if one["experiment"] is None:
            return one["name"], "", "; ".join(problem["what"] for problem in one["problems"]), ""
        return one["name"], one["experiment"]["row"], one["experiment"]["title"], one["experiment"]["blast_radius"]

    _list(state_dir, "/api/v1/experiments", limit, as_json, ("experiment", "row", "title", "blast radius"), row)


def list_receipts(state_dir: StateDir = DEFAULT_STATE, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the newest actions first."""
    heads = ("receipt", "row", "state", "decided", "action", "detail")
    _list(
        state_dir, "/api/v1/receipts", limit, as_json, heads,
        lambda one: (one["id"], one["level"], one["state"], _at(one["decided_at"]), one["action"], one["detail"]),
    )  # fmt: skip


def show_receipt(
    receipt: Annotated[str, typer.Argument(help="Its id, as `controlplane receipt list` shows it.")],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Show one action: why, the plan before and after it, when each phase was, and every step."""
    from urllib.parse import quote

    from controlplane.cli.client import connect
    from controlplane.cli.output import clock_time, out, print_json

    found = connect(state_dir).get(f"/api/v1/receipts/{quote(receipt, safe='')}")
    if as_json:
        print_json(found)
        return
    out.print(f"{found['id']}  {found['state']}  {found['action']}", markup=False)
    for because in found["because"]:
        out.print(f"  because {because}", markup=False)
    for side in ("before", "after"):
        weights = ", ".join(f"{pool} {weight}%" for pool, weight in found[side]["weights"].items())
        out.print(f"  {side}: {weights}", markup=False)
    for phase, at in (("detected", found["detected_at"]), ("decided", found["decided_at"]), *found["times"].items()):
        out.print(f"  {clock_time(at)}  {phase}", markup=False)
    for step in found["steps"]:
        out.print(f"  {step['progress']}: {step['action']}", markup=False)


def list_runbooks(state_dir: StateDir = DEFAULT_STATE, limit: Limit = 1000, as_json: AsJson = False) -> None:
    """List every runbook."""
    heads = ("runbook", "rows", "about")
    _list(
        state_dir, "/api/v1/runbooks", limit, as_json, heads,
        lambda one: (one["name"], ", ".join(one["levels"]), one["about"]),
    )  # fmt: skip


def show_runbook(
    runbook: Annotated[
        str, typer.Argument(help="Its name, as `runbook list` shows it.", autocompletion=complete.runbooks)
    ],
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Print one runbook as Markdown."""
    from urllib.parse import quote

    from controlplane.cli.client import connect
    from controlplane.cli.output import print_json

    text = connect(state_dir).text(f"/api/v1/runbooks/{quote(runbook)}")
    if as_json:
        print_json({"name": runbook, "markdown": text})
    else:
        typer.echo(text, nl=False)


def watch(
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
    count: Annotated[int, typer.Option(help="End after so many events; 0 goes on until Ctrl-C.", min=0)] = 0,
) -> None:
    """Print what happens as it happens: levels, rows, endpoints, drills, incidents, halts; one JSON object a line."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    for number, (kind, what) in enumerate(connect(state_dir).events(), start=1):
        if as_json:
            typer.echo(json.dumps({"event": kind, **what}))
        else:
            rest = ", ".join(
                f"{name} {value}" for name, value in what.items() if name != "name" and value not in ("", [])
            )
            out.print(f"{kind:9} {what.get('name', '')}  {rest}", markup=False, soft_wrap=True)
        if number == count:
            return


def _list(
    state_dir: Any, path: str, limit: int, as_json: bool, heads: Iterable[str],
    row: Callable[[Mapping[str, Any]], tuple[str, ...]],
) -> None:  # fmt: skip
    """Print a list of the API, page after page: as JSON, or a table."""
    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.client import connect
    from controlplane.cli.output import print_json, wide

    found = connect(state_dir).every(path, limit)
    if as_json:
        print_json(found)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head)
    for one in found:
        table.add_row(*map(Text, row(one)))
    wide().print(table if found else "none")


def _query(**asked: str) -> str:
    from urllib.parse import urlencode

    given = urlencode({name: value for name, value in asked.items() if value})
    return f"?{given}" if given else ""


def _at(text: str | None) -> str:
    from controlplane.cli.output import clock_time

    return clock_time(text)
