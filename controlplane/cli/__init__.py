"""The command line: one file a command group.

What a command needs is imported when it is called, not before: that keeps `controlplane --help` under 0.2 s.
Exit status: 0 done, 1 failure, 2 wrong usage or input.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

import controlplane
from controlplane.cli import (
    chaos,
    dashboards,
    database,
    demo,
    drill,
    fleet,
    incident,
    lever,
    lint,
    plane,
    policy,
    remote,
    rollout,
    security,
    simulate,
    target,
)
from controlplane.errors import ControlplaneError

app = typer.Typer(
    name="controlplane",
    help="A resilience control plane for LLM inference fleets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(controlplane.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001 - its callback has done the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    url: Annotated[str, typer.Option("--url", help="Address of the control plane to talk to.", envvar=None)] = "",
    token_file: Annotated[Path | None, typer.Option("--token-file", help="File with a token for it.")] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", help="PEM file with the authority that vouches for it.")
    ] = None,
) -> None:
    """Watch a fleet, degrade it by plan, and prove the plan with real faults.

    A control plane elsewhere is named by --url and --token-file, or by CONTROLPLANE_URL and CONTROLPLANE_TOKEN or
    CONTROLPLANE_TOKEN_FILE. Exit status: 0 done, 1 failure, 2 wrong usage or input, 130 interrupted.
    """
    remote.named.set(remote.Remote(url, token_file, ca_file))


policy.register(app)
lint.register(app)
dashboards.register(app)
plane.register(app)
lever.register(app)
simulate.register(app)
drill.register(app)
incident.register(app)
chaos.register(app)
rollout.register(app)
fleet.register(app)
security.register(app)
database.register(app)
target.register(app)
demo.register(app)


def main() -> None:
    """Run a command; an error a user can act on is printed as what, why and fix, never as a traceback."""
    from controlplane.target.errors import TargetError

    try:
        app()
    except ControlplaneError as error:
        from controlplane.cli.output import print_error

        print_error(error)
        sys.exit(error.exit_code)
    except TargetError as error:
        from controlplane.cli.output import print_error

        print_error(ControlplaneError(error.what, error.why, error.fix))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
