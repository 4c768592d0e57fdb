"""What each number format costs and changes: tokens per second, and how many greedy tokens agree with fp32.

A format that the device cannot compute is left out aloud. Agreement is measured at equal positions of fp32's own text:
each format is shown fp32's tokens so far and asked for the next, so that one early difference does not count for ever.
The model is of random weights, whose likeliest tokens lie closer together than a trained model's: agreement is a floor.
"""

import time
from statistics import median

import torch

from bench.figures import Figure
from controlplane.target.errors import TargetError
from controlplane.target.model import Chunk, Transformer
from controlplane.target.precision import COMPUTE
from controlplane.target.server import keep_memory
from controlplane.target.spec import PRESETS, ModelShape
from controlplane.target.tokenizer import encode

COMMAND = "make bench ONLY=precision"
BATCH = 32
BLOCKS_EACH = 20
STEPS = 40
RUNS = 5
TEXTS = 32
TEXT_TOKENS = 64
SEED = 0
WIDE = ModelShape.sized(layers=4, width=1024, heads=16)
GPU_SHAPE = ModelShape.sized(layers=16, width=2048, heads=16)


def run() -> list[Figure]:
    """Measure every format on the CPU with the full preset and a wider model, and on a GPU where there is one."""
    torch.set_num_threads(1)
    keep_memory()
    cpu = torch.device("cpu")
    figures = _table("full, cpu, 1 thread", PRESETS["full"], cpu) + _table("4x1024, cpu, 1 thread", WIDE, cpu)
    if torch.cuda.is_available():
        figures += _table("16x2048, cuda", GPU_SHAPE, torch.device("cuda"))
    return figures


def _table(what: str, shape: ModelShape, device: torch.device) -> list[Figure]:
    models = {}
    for precision in COMPUTE:
        try:
            models[precision] = Transformer(shape, BATCH * BLOCKS_EACH, SEED, device, precision)
        except TargetError as refusal:
            print(f"left out: {refusal}")
    rates: dict[str, list[float]] = {precision: [] for precision in models}
    for _ in range(RUNS):  # Interleaved: a busy machine is busy for all.
        for precision, model in models.items():
            rates[precision].append(_tokens_per_s(model))
    texts = [_greedy(models["fp32"], number) for number in range(TEXTS)]
    figures = []
    for precision, model in models.items():
        rate, base = median(rates[precision]), median(rates["fp32"])
        figures.append(
            Figure(
                f"{precision} tokens/s at batch {BATCH} ({what})", round(rate, 1), "tokens/s", RUNS, COMMAND,
                peer="fp32", peer_value=round(base, 1), ratio=round(rate / base, 2),
            )
        )  # fmt: skip
        agreed = sum(_agreeing(model, text) for text in texts) / (TEXTS * TEXT_TOKENS)
        figures.append(
            Figure(
                f"{precision} greedy tokens equal to fp32's ({what})", round(agreed, 4), "ratio", TEXTS * TEXT_TOKENS,
                COMMAND, *(("= 1", agreed == 1.0) if precision == "fp32" else ("", None)),
            )
        )  # fmt: skip
    return figures


def _tokens_per_s(model: Transformer) -> float:
    tables = [list(range(1 + row * BLOCKS_EACH, 1 + (row + 1) * BLOCKS_EACH)) for row in range(BATCH)]
    model.compute([Chunk([65], 127, table) for table in tables]).cpu()
    began = time.perf_counter()
    for step in range(STEPS):
        model.compute([Chunk([65], 128 + step, table) for table in tables]).cpu()
    return BATCH * STEPS / (time.perf_counter() - began)


def _greedy(model: Transformer, number: int) -> list[int]:
    """Return the tokens of a prompt and of the model's own greedy text after it."""
    tokens = list(encode(f"question {number}: "))
    blocks = list(range(1, 1 + BLOCKS_EACH))
    computed = 0
    for _ in range(TEXT_TOKENS):
        logits = model.compute([Chunk(tokens[computed:], computed, blocks)])[0]
        computed = len(tokens)
        tokens.append(int(logits.argmax()))
    return tokens


def _agreeing(model: Transformer, tokens: list[int]) -> int:
    """Count at how many positions the model would choose the same token."""
    blocks = list(range(1, 1 + BLOCKS_EACH))
    first = len(tokens) - TEXT_TOKENS
    agreed, computed = 0, 0
    for end in range(first, len(tokens)):
        logits = model.compute([Chunk(tokens[computed:end], computed, blocks)])[0]
        computed = end
        agreed += int(logits.argmax()) == tokens[end]
    return agreed
