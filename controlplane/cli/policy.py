"""`controlplane check` and `controlplane render`: the page, and what is made from it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from controlplane.flows.publish import Change
    from controlplane.policy.load import Loaded

Page = Annotated[Path, typer.Argument(help="The policy page.", show_default=True)]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(check)
    app.command()(render)


def check(
    page: Page = Path("controlplane.yaml"),
    live: Annotated[
        bool, typer.Option("--live", help="Compare the fleet's live metrics pages with what is read from them.")
    ] = False,
    at: Annotated[
        list[str] | None, typer.Option("--at", help="With --live: a page's URL or file, instead of the fleet's.")
    ] = None,
    detection: Annotated[
        bool, typer.Option("--detection", help="Print how long every alert takes at worst, against its row's promise.")
    ] = False,
) -> None:
    """Print a policy page with every default filled in, or everything that is wrong with it."""
    import yaml
    from rich.syntax import Syntax

    from controlplane.cli.output import err, out
    from controlplane.policy.load import load

    if live and at:
        _check_live(at, None if not page.exists() else load(page))
        return
    loaded = load(page)
    if live:
        _check_live([], loaded)
        return
    if detection:
        _print_detection(loaded)
        return
    _refuse_late_alerts(loaded)
    text = yaml.safe_dump(
        dict(loaded.resolved), sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )
    if out.is_terminal:
        out.print(Syntax(text, "yaml", background_color="default"), soft_wrap=True)
    else:
        typer.echo(text, nl=False)
    for row, why in loaded.policy.degradation.not_armed.items():
        err.print(f"[yellow]note:[/] row {row} is not armed: {why}")


def _refuse_late_alerts(loaded: "Loaded") -> None:
    """Refuse a page whose alerts would come later than what its rows promise."""
    from controlplane.render.alerting.detection import refuse
    from controlplane.render.alerting.groups import groups

    refuse(loaded.policy, groups(loaded.policy))


def _print_detection(loaded: "Loaded") -> None:
    """Print the way of every alert that leads to a row; fail when one is too slow."""
    from controlplane.render.alerting.detection import detections, refuse, table
    from controlplane.render.alerting.groups import groups

    made = groups(loaded.policy)
    for line in table(detections(loaded.policy, made)) or ("no row is armed, so nothing is promised",):
        typer.echo(line)
    refuse(loaded.policy, made)


def _check_live(at: list[str], loaded: "Loaded | None") -> None:
    """Compare pages, say what is wrong, and fail when anything is."""
    from controlplane.cli.live import inspect_fleet, inspect_page, relied_on, table
    from controlplane.cli.output import err, out
    from controlplane.signals.engines import engine_named

    if at:
        named = engine_named(loaded.policy.fleet.engine) if loaded else None
        pages = tuple(inspect_page(address, address, named) for address in at)
    elif loaded:
        pages = inspect_fleet(loaded)
    else:
        pages = ()
    out.print(table(pages))
    wrong = [(page, problem) for page in pages for problem in page.contract.problems]
    for page, problem in wrong:
        err.print(f"[red]{page.name}[/] {problem}", soft_wrap=True)
    blind = relied_on(loaded, pages) if loaded and not at else ()
    for line in blind:
        err.print(f"[yellow]note:[/] {line}", soft_wrap=True)
    out.print(f"{len(pages)} pages, {len({page.name for page, _ in wrong})} with problems")
    if wrong:
        raise typer.Exit(1)


def render(
    page: Page = Path("controlplane.yaml"),
    check_only: Annotated[
        bool, typer.Option("--check", help="Write nothing; say which files are not as the page says, and why.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="With --check: print the lines that differ, too.")] = False,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Write here instead of the page's `publish.dir`.")
    ] = None,
) -> None:
    """Render alerts, dashboards and runbooks from a policy page and the drills on record.

    Exit status of --check: 0 when every file is as the page says, 1 when one is not, 2 when the page is wrong.
    """
    from controlplane.cli.output import out
    from controlplane.clock import utcnow
    from controlplane.errors import ControlplaneError
    from controlplane.flows.publish import compare, publish
    from controlplane.lint.drift import origin_of
    from controlplane.policy.load import load
    from controlplane.render.artefacts import render as render_all
    from controlplane.runtime.evidence import on_record

    loaded = load(page)
    _refuse_late_alerts(loaded)
    drills, incidents = on_record(loaded)
    rendered = render_all(loaded.policy, drills, loaded.path.name, incidents)
    origin = origin_of(loaded.resolved, drills)
    directory = out_dir or loaded.base / loaded.policy.publish.dir
    if check_only:
        _, changes = compare(rendered, directory, origin)
        if changes:
            _print_drift(changes, with_lines=diff)
            raise ControlplaneError(
                f"{len(changes)} rendered files are not as {page} says",
                "; ".join(dict.fromkeys(change.why for change in changes)),
                f"run `controlplane render {page}` and commit" + ("" if diff else "; --diff shows the lines"),
            )
        out.print(f"{len(rendered)} files are as {page} says")
        return
    changes = publish(rendered, directory, origin, utcnow().date())
    for change in changes:
        out.print(f"{change.kind:9} {directory / change.path}")
    written = sum(change.path in rendered for change in changes)
    out.print(f"{len(rendered)} files rendered, {written} written")


def _print_drift(changes: "tuple[Change, ...]", *, with_lines: bool) -> None:
    """Print which files differ, by how many lines, and why."""
    from rich.table import Table
    from rich.text import Text

    from controlplane.cli.output import out

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for change in changes:
        more, less = (sum(x.startswith(s) and not x.startswith(s * 3) for x in change.lines) for s in "+-")
        size = Text.assemble((f"+{more}", "green"), " ", (f"-{less}", "red")) if change.lines else Text("")
        table.add_row(Text(change.kind, "yellow"), Text(change.path), size, Text(change.why))
    out.print(table)
    for line in (line for change in changes if with_lines for line in change.lines):
        out.print(Text(line, {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")), soft_wrap=True)
