"""`controlplane chaos`: one fault by hand, without a fleet or a control plane."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="Single faults by hand; drills are `controlplane drill`.", no_args_is_help=True)
    group.callback()(_only_named)
    group.command("burn")(burn)
    app.add_typer(group, name="chaos")


def _only_named() -> None:
    """Keep `burn` a word of its own while it is the only one."""


def burn(
    lasts: Annotated[str, typer.Option("--for", help="When it ends by itself, such as 30s or 2m.")] = "30s",
    duty: Annotated[float, typer.Option(help="Share of the time that the device computes.", min=0.05, max=1)] = 0.95,
    memory_mib: Annotated[float, typer.Option(help="Memory held on the device.", min=0)] = 0.0,
    threads: Annotated[int, typer.Option(help="Loops for each CPU, where there is no GPU.", min=1, max=64)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    pid: Annotated[int, typer.Option(help="Burn the device that this process computes on.", min=0)] = 0,
    max_temperature: Annotated[float, typer.Option(help="End when the GPU is hotter, in Celsius.")] = 85.0,
    max_power: Annotated[float, typer.Option(help="End when the GPU draws more of its power limit.", min=0.1)] = 1.1,
    ready_file: Annotated[str, typer.Option(help="A file that is there while it burns, for a readiness probe.")] = "",
) -> None:
    """Keep a GPU (or the CPUs) busy and hold memory; ends at its time, with its parent, or at a ceiling."""
    import os
    import time
    from contextlib import suppress
    from pathlib import Path

    import psutil

    from controlplane.chaos.fault import MAX_LEASE
    from controlplane.chaos.keepers.burn import Burn
    from controlplane.chaos.keepers.keeper import KeeperError, Order, keep, started_after_boot_s
    from controlplane.errors import FaultError, UsageError
    from controlplane.policy import quantity

    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device `{device}`", "it is auto, cpu or cuda", "name one of these")
    try:
        time_s = quantity.duration(lasts).total_seconds()
    except ValueError as error:
        raise UsageError(f"--for is `{lasts}`", f"expected {error}", "give a time") from error
    if not 0 < time_s <= MAX_LEASE.total_seconds():
        raise UsageError(f"it may not burn for {lasts}", f"the longest is {MAX_LEASE}", "give a shorter time")
    parent, parent_started_s = os.getppid(), 0.0
    with suppress(psutil.Error):
        parent_started_s = started_after_boot_s(parent)
    order = Order("burn", "", f"by-hand-{os.getpid()}", time.time() + time_s, parent, parent_started_s)
    work = Burn(duty, memory_mib, threads, max_temperature, max_power, pid, device)

    def ready() -> None:
        typer.echo(f"burning for {lasts}; Ctrl-C ends it")
        if ready_file:
            Path(ready_file).touch()

    try:
        why = keep(order, work, ready)
    except KeeperError as error:
        raise FaultError("cannot burn", str(error), "put that right, or choose another --device") from error
    finally:
        if ready_file:
            Path(ready_file).unlink(missing_ok=True)
    typer.echo(f"ended: {why}")
