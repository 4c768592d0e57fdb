"""`controlplane lint`: can what was rendered be believed tonight?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from controlplane.lint.finding import Finding
    from controlplane.runtime.linting import Linted

SHOWN_FILES = 12
STYLES = {"error": "red", "warn": "yellow", "note": "dim"}


def register(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command()(lint)


def lint(
    page: Annotated[Path, typer.Argument(help="The policy page.", show_default=True)] = Path("controlplane.yaml"),
    live: Annotated[
        bool, typer.Option("--live", help="Ask the Prometheus every query, and every address that a link names.")
    ] = False,
    prometheus: Annotated[
        str, typer.Option("--prometheus", metavar="URL", help="With --live: the server that scrapes the fleet.")
    ] = "http://127.0.0.1:9090",
    since: Annotated[
        str, typer.Option("--since", help="With --live: how old a series' last sample may be and still count.")
    ] = "1h",
    min_score: Annotated[
        int | None,
        typer.Option("--min-score", min=0, max=100, help="Fail below this score instead of at any error."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print scores and findings as JSON.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="List notes, too: what is quiet by design.")] = False,
    directory: Annotated[
        Path | None, typer.Option("--out", help="Look here instead of the page's `publish.dir`.")
    ] = None,
) -> None:
    """Check every query, link and proof of the rendered alerts, dashboards and runbooks, and score them.

    Exit status: 0 when nothing is wrong, or the score is not below --min-score; 1 otherwise; 2 wrong usage.
    """
    from controlplane.cli.output import err, out
    from controlplane.lint.finding import score
    from controlplane.policy.load import load
    from controlplane.runtime.linting import lint as lint_all

    loaded = load(page)
    where = directory or loaded.base / loaded.policy.publish.dir
    found = lint_all(loaded, where, prometheus if live else "", follow=live, since=since)
    total = score(found.checks)
    if as_json:
        typer.echo(json.dumps(_document(found, live), indent=1, ensure_ascii=False))
    else:
        shown = _shown(found, notes=notes)
        if shown:
            out.print(_findings(shown))
            out.print()
        out.print(_scores(found))
        if not live:
            err.print("[dim]the files alone; --live asks a Prometheus and every address, too[/]")
    if total.errors if min_score is None else total.score < min_score:
        raise typer.Exit(1)


def _shown(found: "Linted", *, notes: bool) -> "list[Finding]":
    """Return the findings a person sees, the worst first, then in the order of the files."""
    order = list(STYLES)
    every = [finding for check in found.checks for finding in check.findings if notes or finding.severity != "note"]
    return sorted(every, key=lambda finding: order.index(finding.severity))


def _findings(shown: "list[Finding]") -> "Table":
    """Draw findings, one row for what is the same in several places; --json lists them all."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", "file", "where", "what is wrong"):
        table.add_column(column, overflow="fold", no_wrap=column == "")
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for finding in shown:
        where = "" if finding.where.startswith("line ") else finding.where
        alike.setdefault((finding.severity, finding.rule, where, finding.what), []).append(finding)
    for same in alike.values():
        finding, more = same[0], len(same) - 1
        what = Text(finding.what)
        if finding.fix:
            what.append(f"\n{finding.fix}", "cyan")
        severity = Text(finding.severity, STYLES[finding.severity])
        where = f"{finding.where}, and {more} more" if more else finding.where
        table.add_row(severity, Text(finding.path), Text(where), what)
    return table


def _scores(found: "Linted") -> "Table":
    """Draw scores, the files with errors first; of the others only the worst: --json lists them all."""
    from rich.table import Table
    from rich.text import Text

    from controlplane.lint.finding import by_file, score

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("score", justify="right")
    table.add_column("file", overflow="fold")
    for column in ("checks", "errors", "warnings"):
        table.add_column(column, justify="right")
    asked = [item for item in by_file(found.checks, found.paths).items() if item[1].checks]
    files = sorted(asked, key=lambda item: (-item[1].errors, item[1].score, item[0]))
    shown = [item for n, item in enumerate(files) if item[1].errors or n < SHOWN_FILES]
    rest = files[len(shown) :]
    for name, came in (*shown, ("all", score(found.checks))):
        if name == "all" and rest:
            least = min(other.score for _, other in rest)
            table.add_row(f">={least}", Text(f"{len(rest)} more files, none with an error", "dim"), "", "", "")
        style = "red" if came.errors else "yellow" if came.warnings else "green"
        cells = (str(came.checks), str(came.errors), str(came.warnings))
        table.add_row(Text(str(came.score), style), Text(name, "bold" if name == "all" else ""), *cells)
    return table


def _document(found: "Linted", live: bool) -> dict[str, Any]:
    from dataclasses import asdict

    from controlplane.lint.finding import by_file, score

    return {
        "live": live,
        "total": asdict(score(found.checks)),
        "files": {path: asdict(came) for path, came in by_file(found.checks, found.paths).items()},
        "findings": [asdict(finding) for check in found.checks for finding in check.findings],
    }
