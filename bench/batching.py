"""What continuous batching gives: tokens per second with 32 requests at once against one after another.

Both go through the engine, scheduler and sampling included, over one model. On a CUDA device a larger model is measured
too. The peer is the engine itself at batch 1, interleaved with batch 32 in the same run.
"""

import asyncio
import time
from statistics import median

import torch

from bench.figures import Figure
from controlplane.target.engine import Engine
from controlplane.target.metrics import Metrics
from controlplane.target.model import Transformer
from controlplane.target.scheduler import Batching
from controlplane.target.sequence import Request
from controlplane.target.server import keep_memory
from controlplane.target.spec import PRESETS, ModelShape
from controlplane.target.tokenizer import encode

COMMAND = "make bench ONLY=batching"
BATCH = 32
PROMPT = "Why does a fleet of servers stay up while one of them fails? "
TOKENS = 128
RUNS = 7
GOAL = 4.0
NUM_BLOCKS = 1024
GPU_SHAPE = ModelShape.sized(layers=16, width=2048, heads=16)


def run() -> list[Figure]:
    """Measure each preset on the CPU, and a model of 0.7 billion weights on a GPU where there is one."""
    torch.set_num_threads(1)
    keep_memory()
    figures = []
    for name, shape in PRESETS.items():
        figures += asyncio.run(_compare(f"{name}, cpu, 1 thread", shape, torch.device("cpu"), "fp32"))
    if torch.cuda.is_available():
        figures += asyncio.run(_compare("16x2048, cuda, bf16", GPU_SHAPE, torch.device("cuda"), "bf16"))
    return figures


async def _compare(what: str, shape: ModelShape, device: torch.device, precision: str) -> list[Figure]:
    model = Transformer(shape, NUM_BLOCKS, seed=0, device=device, precision=precision)
    metrics = Metrics("bench", shape.max_len)
    engine = Engine(model, metrics, max_queue=100, num_blocks=NUM_BLOCKS, batching=Batching(BATCH, 512))
    engine.start()
    try:
        await _tokens_per_s(engine, BATCH)
        alone, together = [], []
        for _ in range(RUNS):  # Interleaved: a busy machine is busy for both.
            alone.append(await _tokens_per_s(engine, 1))
            together.append(await _tokens_per_s(engine, BATCH))
    finally:
        engine.close()
    one, many = median(alone), median(together)
    ratio = median(b / a for a, b in zip(alone, together, strict=True))
    return [
        Figure(
            f"tokens/s at batch {BATCH} ({what})", round(many, 1), "tokens/s", RUNS, COMMAND, f">= {GOAL:g}x batch 1",
            ratio >= GOAL, "batch 1", round(one, 1), round(ratio, 2),
        )
    ]  # fmt: skip


async def _tokens_per_s(engine: Engine, batch: int) -> float:
    """Answer ``batch`` requests at once; prompts differ from the first token on, so that none is found in the cache."""
    began = time.perf_counter()
    wishes = [
        Request("bench", encode(f"{time.perf_counter_ns()} {number} {PROMPT}"), TOKENS, ignore_eos=True)
        for number in range(batch)
    ]
    generations = [engine.submit(wish) for wish in wishes]
    for generation in generations:
        async for _ in generation.pieces():
            pass
    return batch * TOKENS / (time.perf_counter() - began)
