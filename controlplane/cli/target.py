"""`controlplane target`: one endpoint or response cache alone, warming a cache, and load for any of them."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(
        help="The reference inference target: an endpoint, a response cache, load.", no_args_is_help=True
    )
    group.command("serve")(serve)
    group.command("load")(load)
    group.command("cache")(cache)
    group.command("warm")(warm)
    app.add_typer(group, name="target")


def serve(
    model: Annotated[str, typer.Option(help="Model size: full or base.")] = "full",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    max_queue: Annotated[int, typer.Option(help="Requests that may wait; beyond it 503.", min=1)] = 100,
    layers: Annotated[int | None, typer.Option(help="Layers, instead of the size's own.", min=1)] = None,
    width: Annotated[int | None, typer.Option(help="Model width, instead of the size's own.", min=2)] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads, instead of the size's own.", min=1)] = None,
    max_model_len: Annotated[int | None, typer.Option(help="Longest prompt plus answer, in tokens.", min=2)] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16, int8 or int4 (weights).")] = "fp32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of one step.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seeds the weights.")] = 0,
    max_num_seqs: Annotated[int, typer.Option(help="Requests that run in one batch.", min=1)] = 32,
    max_num_batched_tokens: Annotated[int, typer.Option(help="Tokens computed in one step.", min=1)] = 512,
    num_blocks: Annotated[int, typer.Option(help="KV-cache blocks of 16 tokens.", min=1)] = 1024,
    shutdown_timeout: Annotated[float, typer.Option(help="Seconds to finish after SIGTERM.", min=0.0)] = 1.0,
) -> None:
    """Serve one endpoint: an OpenAI-compatible server with vLLM's metric names."""
    from controlplane.target.server import serve_endpoint
    from controlplane.target.spec import EndpointSpec

    spec = EndpointSpec(
        model=model, host=host, port=port, max_queue=max_queue, layers=layers, width=width, heads=heads,
        max_len=max_model_len, precision=precision, device=device, threads=threads, seed=seed,
        max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, num_blocks=num_blocks,
        drain_timeout_s=shutdown_timeout,
    )  # fmt: skip
    raise typer.Exit(serve_endpoint(spec))


def load(
    url: Annotated[str, typer.Argument(help="Base URL, such as http://127.0.0.1:8000.")],
    out: Annotated[Path, typer.Option(help="JSON Lines file, one line a request.")] = Path("requests.jsonl"),
    rate: Annotated[float, typer.Option(help="Requests per second.", min=0.1)] = 50.0,
    duration: Annotated[float | None, typer.Option(help="Seconds; without it until Ctrl-C.", min=0.1)] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens wanted per answer.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seeds arrival times and prompts.")] = 0,
    arrivals: Annotated[str, typer.Option(help="poisson or constant.")] = "poisson",
    shortest: Annotated[int, typer.Option(help="Shortest prompt, in bytes.", min=1)] = 16,
    longest: Annotated[int, typer.Option(help="Longest prompt, in bytes.", min=1)] = 96,
    lengths: Annotated[str, typer.Option(help="loguniform, uniform, lognormal or fixed.")] = "loguniform",
    prompts: Annotated[int | None, typer.Option(help="Repeat so many prompts, some far more often.", min=1)] = None,
    stream: Annotated[bool, typer.Option(help="Ask for streamed answers.")] = False,
    chat: Annotated[bool, typer.Option(help="Ask for chat completions.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds; later counts as not answered.", min=0.1)] = 5.0,
    locustfile: Annotated[Path | None, typer.Option(help="Write a Locust file of this load; send nothing.")] = None,
    quiet: Annotated[bool, typer.Option(help="Print no summary.")] = False,
) -> None:
    """Send open-loop load and print percentiles from the intended send times (no coordinated omission)."""
    from controlplane.target.load import run_load
    from controlplane.target.locustfile import write_locustfile
    from controlplane.target.spec import LoadSpec

    spec = LoadSpec(
        url, out, rate, duration, arrivals, seed, max_tokens=max_tokens, prompt_bytes=(shortest, longest),
        lengths=lengths, prompts=prompts, chat=chat, stream=stream, timeout_s=timeout, quiet=quiet,
    )  # fmt: skip
    if locustfile is None:
        raise typer.Exit(run_load(spec))
    users = write_locustfile(spec, locustfile)
    typer.echo(f"locust -f {locustfile} --headless --users {users} --spawn-rate {users} --run-time 60s")


def cache(
    upstream: Annotated[str, typer.Argument(help="Base URL of the fleet that is asked on a miss.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8100,
    model: Annotated[str, typer.Option(help="The model whose answers it holds.")] = "full",
    directory: Annotated[Path | None, typer.Option(help="Folder of the SQLite tier.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL, in place of SQLite.", envvar="CACHE_REDIS_URL")] = None,
    objects: Annotated[str | None, typer.Option(help="fsspec URL of an object storage tier.")] = None,
    near: Annotated[bool, typer.Option(help="Also match nearly equal prompts, and say so.")] = False,
    max_fills: Annotated[int, typer.Option(help="Misses that may wait for the fleet; beyond it 503.", min=0)] = 32,
    token: Annotated[str, typer.Option(help="Secret of publishers and `warm`.", envvar="CACHE_TOKEN")] = "",
) -> None:
    """Serve one response cache in front of a fleet."""
    from controlplane.target.cache_server import serve_cache
    from controlplane.target.spec import CacheSpec

    spec = CacheSpec(
        model=model, host=host, port=port, upstream=upstream, token=token, directory=directory, redis_url=redis,
        object_url=objects, near=near, max_fills=max_fills,
    )  # fmt: skip
    raise typer.Exit(serve_cache(spec))


def warm(
    run_dir: Annotated[Path, typer.Option(help="The fleet's run directory.")] = Path("run"),
    top: Annotated[int, typer.Option(help="How many of the most asked questions.", min=0)] = 100,
    prompts: Annotated[Path | None, typer.Option(help="JSON Lines file of further request bodies.")] = None,
) -> None:
    """Have a fleet's response cache fetch the answers that will be asked for, before it is switched to."""
    from controlplane.target.cache_warm import WarmSpec, run_warm

    found = run_warm(WarmSpec(run_dir, top, prompts))
    typer.echo(", ".join(f"{count} {name}" for name, count in found.items()))
