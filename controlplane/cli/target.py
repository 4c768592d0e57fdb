"""`controlplane target`: one reference endpoint alone, and load for any endpoint or gateway."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(help="The reference inference target: one endpoint, or load.", no_args_is_help=True)
    group.command("serve")(serve)
    group.command("load")(load)
    app.add_typer(group, name="target")


def serve(
    model: Annotated[str, typer.Option(help="Model size: full or base.")] = "full",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    max_queue: Annotated[int, typer.Option(help="Requests that may wait; beyond it 503.", min=1)] = 100,
) -> None:
    """Serve one endpoint: an OpenAI-compatible server with vLLM's metric names."""
    from controlplane.target.server import serve_endpoint
    from controlplane.target.spec import EndpointSpec

    raise typer.Exit(serve_endpoint(EndpointSpec(model=model, host=host, port=port, max_queue=max_queue)))


def load(
    url: Annotated[str, typer.Argument(help="Base URL, such as http://127.0.0.1:8000.")],
    out: Annotated[Path, typer.Option(help="JSON Lines file, one line a request.")] = Path("requests.jsonl"),
    rate: Annotated[float, typer.Option(help="Requests per second.", min=0.1)] = 50.0,
    duration: Annotated[float | None, typer.Option(help="Seconds; without it until Ctrl-C.", min=0.1)] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens wanted per answer.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seeds arrival times and prompts.")] = 0,
    stream: Annotated[bool, typer.Option(help="Ask for streamed answers.")] = False,
    quiet: Annotated[bool, typer.Option(help="Print no summary.")] = False,
) -> None:
    """Send open-loop load and print percentiles from the intended send times (no coordinated omission)."""
    from controlplane.target.load import run_load
    from controlplane.target.spec import LoadSpec

    spec = LoadSpec(url, out, rate, duration, max_tokens=max_tokens, seed=seed, stream=stream, quiet=quiet)
    raise typer.Exit(run_load(spec))
