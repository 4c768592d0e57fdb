"""`controlplane up`: the reference fleet on this machine."""

from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[Path, typer.Option("--run-dir", help="Where the fleet keeps its state; one fleet a directory.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(up)


def up(
    run_dir: RunDir = Path("run"),
    port: Annotated[int, typer.Option(help="Port of the gateway; 0 takes a free one.", min=0, max=65535)] = 0,
) -> None:
    """Start a real, small inference fleet: Envoy in front of pools primary, standby and base. Ctrl-C stops it."""
    from controlplane.target.fleet import run_fleet
    from controlplane.target.spec import FleetSpec

    write_page(run_dir)
    raise typer.Exit(run_fleet(FleetSpec(run_dir=run_dir, gateway_port=port)))


def write_page(run_dir: Path) -> Path:
    """Write the reference fleet's policy page into a run directory, unless one is there.

    Raises:
        RunDirError: when the directory cannot be written.
    """
    from importlib import resources

    from controlplane.errors import RunDirError
    from controlplane.wholefile import write_whole

    page = run_dir / "controlplane.yaml"
    text = resources.files("controlplane.policy").joinpath("reference.yaml").read_text(encoding="utf-8")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not page.exists():
            write_whole(page, text)
    except OSError as error:
        raise RunDirError(
            f"cannot write to {run_dir}", str(error), "make it writable, free space, or name another with --run-dir"
        ) from error
    return page
