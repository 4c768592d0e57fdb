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
    links: Annotated[bool, typer.Option(help="Put a link that can be broken in front of every endpoint.")] = True,
    netns: Annotated[bool, typer.Option(help="Give every endpoint a network namespace (Linux, root).")] = False,
    pin_cpus: Annotated[bool, typer.Option(help="Bind every endpoint to one CPU, in turn.")] = False,
    rate_limit: Annotated[float | None, typer.Option(help="Requests per second; beyond it 429.", min=0.1)] = None,
    deadline: Annotated[float, typer.Option(help="Longest answer, in seconds.", min=0.1)] = 60.0,
    redis: Annotated[str | None, typer.Option(help="Redis URL for the cache.", envvar="CACHE_REDIS_URL")] = None,
    objects: Annotated[str | None, typer.Option(help="fsspec URL of object storage for the cache.")] = None,
    near: Annotated[bool, typer.Option(help="Let the cache match nearly equal prompts.")] = False,
    otlp: Annotated[
        str | None, typer.Option(help="OTLP/HTTP collector for traces.", envvar="OTEL_EXPORTER_OTLP_ENDPOINT")
    ] = None,
) -> None:
    """Start a real, small inference fleet: Envoy in front of primary, standby, base and cache. Ctrl-C stops it."""
    from controlplane.target.fleet import run_fleet
    from controlplane.target.spec import CacheSpec, FleetSpec, GatewaySpec

    write_page(run_dir, netns=netns)
    spec = FleetSpec(
        run_dir=run_dir,
        gateway_port=port,
        gateway=GatewaySpec(deadline_s=deadline, rate_per_s=rate_limit, otlp_url=otlp),
        cache=CacheSpec(redis_url=redis, object_url=objects, near=near),
        links=links,
        netns=netns,
        pin_cpus=pin_cpus,
    )
    raise typer.Exit(run_fleet(spec))


def write_page(run_dir: Path, netns: bool = False) -> Path:
    """Write the reference fleet's policy page into a run directory, unless one is there.

    Args:
        run_dir: the fleet's run directory.
        netns: whether its endpoints have network namespaces, which is where drills then break them.

    Raises:
        RunDirError: when the directory cannot be written.
    """
    from importlib import resources

    from controlplane.errors import RunDirError
    from controlplane.wholefile import write_whole

    page = run_dir / "controlplane.yaml"
    text = resources.files("controlplane.policy").joinpath("reference.yaml").read_text(encoding="utf-8")
    if netns:
        text = text.replace("    process: { nodes_dir: nodes }", "    netns: { nodes_dir: nodes }")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not page.exists():
            write_whole(page, text)
    except OSError as error:
        raise RunDirError(
            f"cannot write to {run_dir}", str(error), "make it writable, free space, or name another with --run-dir"
        ) from error
    return page
