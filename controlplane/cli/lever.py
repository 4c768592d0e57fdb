"""`controlplane level`, `pin`, `unpin`, `approve`, `refuse`, `release`, `brake`: a person's hand on the lever."""

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli import complete
from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

Row = Annotated[str, typer.Argument(help="A row of the matrix, such as P1.", autocompletion=complete.levels)]
Why = Annotated[str, typer.Option("--why", help="The reason; it is kept, and stands on the timeline.")]
Who = Annotated[str, typer.Option("--who", help="Who says it.", envvar="CONTROLPLANE_WHO", show_default="you")]

brake_app = typer.Typer(help="Hold everything that acts by itself, and let go of it.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    for command in (level, pin, unpin, approve, refuse, release):
        app.command()(command)
    brake_app.command("release")(brake_release)
    brake_app.command("pull")(brake_pull)
    app.add_typer(brake_app, name="brake")


def level(state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Say what is in force, since when, why, and what people have said."""
    import json

    from controlplane.cli.client import connect
    from controlplane.cli.output import out

    standing = connect(state_dir).get("/api/v1/standing")
    keys = ("service", "level", "level_since", "why", "mode", "pins", "braked", "brake")
    if as_json:
        rows = [
            {
                "row": row["row"]["level"],
                **{
                    key: row[key] for key in ("phase", "since", "because", "given_back", "waits_for", "awaits_approval")
                },
            }
            for row in standing["rows"]
        ]
        out.print_json(json.dumps({**{key: standing[key] for key in keys}, "rows": rows}))
        return
    for line in level_lines(standing):
        out.print(line)


def level_lines(standing: dict[str, Any]) -> list[Any]:
    """Write what is in force, a line a fact.

    Args:
        standing: the answer of `/api/v1/standing`.
    """
    from rich.text import Text

    from controlplane.cli.output import LEVEL_STYLES, clock_time

    said, since = standing["level"], clock_time(standing["level_since"])
    head = ((standing["service"], "bold"), "  level ", (said, LEVEL_STYLES[said]), f" since {since}")
    lines: list[Any] = [Text.assemble(*head, f"  mode {standing['mode']}")]
    lines += [Text(f"  because {why}") for why in standing["why"]]
    if standing["braked"]:
        brake = standing["brake"]
        by = f" by {brake['who']} at {clock_time(brake['at'])}: {brake['why']}" if brake else ""
        lines.append(Text(f"  the brake is on{by}", "bold red"))
    for held in standing["pins"]:
        until = f" until {clock_time(held['until'])}" if held["until"] else ""
        lines.append(Text(f"  {held['level']} is pinned by {held['who']}{until}: {held['why']}", "yellow"))
    for row in standing["rows"]:
        waits = f": {row['waits_for']}" if row["waits_for"] else ""
        given = f", {row['given_back']:.0%} given back" if row["phase"] == "releasing" else ""
        lines.append(
            Text(
                f"  {row['row']['level']} {row['phase']}{given} since {clock_time(row['since'])}{waits}",
                "yellow" if row["awaits_approval"] else "",
            )
        )
        lines += [Text(f"     {because}", "dim") for because in row["because"] if row["phase"] != "idle"]
    return lines


def pin(
    row: Annotated[
        str, typer.Argument(help="A row such as P1; `none` lets no row begin anything.", autocompletion=complete.levels)
    ],
    why: Why,
    lasts: Annotated[str | None, typer.Option("--for", help="How long, such as 30m.", show_default="no end")] = None,
    who: Who = "",
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Put a row in force and keep it there, whatever its trigger says."""
    body = {"for": lasts} if lasts else {}
    held = _say(state_dir, f"/pins/{row}", why, who, **body)
    until = f" until {held['until']}" if held["until"] else ""
    _print(held, f"{row} is pinned{until}", as_json)


def unpin(row: Row, why: Why, who: Who = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """End a pin: the row follows its trigger again."""
    _print(_say(state_dir, f"/pins/{row}/end", why, who), f"{row} follows its trigger again", as_json)


def approve(row: Row, why: Why, who: Who = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Let a row engage that waits for approval."""
    _print(_say(state_dir, f"/rows/{row}/approve", why, who), f"{row} engages", as_json)


def refuse(row: Row, why: Why, who: Who = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Have a row left alone until its trigger has cleared."""
    _print(
        _say(state_dir, f"/rows/{row}/refuse", why, who), f"{row} is left alone until its trigger has cleared", as_json
    )


def release(row: Row, why: Why, who: Who = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Begin to give a row's traffic back now, by its steps."""
    _print(_say(state_dir, f"/rows/{row}/release", why, who), f"{row} is being released", as_json)


def brake_release(why: Why, who: Who = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Let go of the brake: rows act by themselves again."""
    _print(_say(state_dir, "/brake/release", why, who), "rows act by themselves again", as_json)


def brake_pull(why: Why, who: Who = "", state_dir: StateDir = DEFAULT_STATE, as_json: AsJson = False) -> None:
    """Pull the brake: nothing engages or is given back by itself."""
    _print(
        _say(state_dir, "/brake", why, who),
        "nothing engages or is given back by itself; taking traffic back from an ill primary goes on",
        as_json,
    )


def _say(state_dir: Path, path: str, why: str, who: str, **more: str) -> Any:
    from controlplane.cli.client import connect

    return connect(state_dir).post(f"/api/v1{path}", {"why": why, "who": who or _user(), **more})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _print(said: object, text: str, as_json: bool) -> None:
    from controlplane.cli.output import out, print_json

    if as_json:
        print_json(said)
    else:
        out.print(text)
