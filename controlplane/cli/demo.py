"""`controlplane demo`: the product's main job in one command, on a real fleet on this machine.

It starts the fleet, the control plane and the load as processes of their own, runs the node-kill drill, and adds up
what the load generator and the control plane wrote down. It passes only when the drill did.
"""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(demo)


def demo(
    run_dir: Annotated[Path, typer.Option("--run-dir", help="Where everything is kept.")] = Path("run"),
    rate: Annotated[float, typer.Option(help="Requests per second through the gateway.", min=1)] = 50.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave fleet and control plane running afterwards.")] = False,
    port: Annotated[int, typer.Option(help="Port of the console; 0 takes a free one.", min=0, max=65535)] = 0,
) -> None:
    """Start a fleet, kill its primary pool under load, and show that nobody noticed."""
    from controlplane.cli.demo_story import run_demo

    raise typer.Exit(run_demo(run_dir, rate, port, keep=keep))
