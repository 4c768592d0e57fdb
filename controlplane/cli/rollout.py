"""`controlplane rollout`: giving a new version traffic by steps, and taking it off again."""

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.plane import DEFAULT_STATE, AsJson, StateDir

ABORT = "abort"
POLL_S = 0.5


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(rollout)


def rollout(
    service: Annotated[str, typer.Argument(help=f"The service, or `{ABORT}` to take the traffic back.")],
    to: Annotated[str, typer.Option("--to", help="The pool that serves the new version.")] = "",
    steps: Annotated[str, typer.Option(help="Shares of the traffic, one after another.")] = "10%,50%,100%",
    hold: Annotated[str, typer.Option(help="How long each step is held and judged.")] = "60s",
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    state_dir: StateDir = DEFAULT_STATE,
    as_json: AsJson = False,
) -> None:
    """Give a pool traffic by steps; each is judged against the primary pool, and a worse one is rolled back."""
    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json
    from controlplane.errors import UsageError

    server, me = connect(state_dir), getpass.getuser()
    if service == ABORT:
        ended = server.post("/api/v1/rollouts/abort", {"requested_by": me})
        print_json(ended) if as_json else out.print(f"{ended['id']}: {ended['detail'] or ended['state']}")
        return
    if not to:
        raise UsageError("no pool is named", "a rollout goes to a pool", "name it with --to POOL")
    body = {"service": service, "to": to, "steps": steps.split(","), "hold": hold, "requested_by": me}
    begun = server.post("/api/v1/rollouts", body)
    if not wait or not as_json:
        print_json(begun) if as_json else out.print(f"{begun['id']}: {begun['action']}")
    if wait:
        raise typer.Exit(_follow(state_dir, begun["id"], as_json))


def _follow(state_dir: Path, receipt_id: str, as_json: bool) -> int:
    """Print each step as it is done, until the rollout has ended; 0 when all traffic is at the pool.

    As JSON only what has become of it is printed: one document.
    """
    import time

    from controlplane.cli.client import connect
    from controlplane.cli.output import out, print_json

    server, told = connect(state_dir), 0
    while True:
        receipt: Any = server.get("/api/v1/rollouts/newest")
        done = [step["action"] for step in receipt["steps"] if step["progress"] == "done"]
        for action in done[told:] if not as_json else ():
            out.print(action)
        told = len(done)
        if receipt["id"] != receipt_id or receipt["state"] in ("verified", "reverted", "failed"):
            print_json(receipt) if as_json else out.print(f"{receipt['state']}: {receipt['detail']}")
            return 0 if receipt["state"] == "verified" else 1
        time.sleep(POLL_S)
