"""What each number format costs and changes: tokens per second, and how many greedy tokens agree with fp32.

A format that the device cannot compute is left out aloud. Agreement is measured at equal positions of fp32's own text:
each format is shown fp32's tokens so far and asked for the next, so that one early difference does not count for ever.
The model is of random weights, whose likeliest tokens lie closer together than a trained model's: agreement is a floor.
"""

import time
from collections.abc import Iterator
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
MEASURE_S = 0.25
"""A rate is measured for at least this long; a format that the device computes slowly gets fewer steps."""
RUNS = 5
TEXT_TOKENS = 64
SEED = 0
WIDE = ModelShape.sized(layers=2, width=512, heads=8)
GPU_SHAPE = ModelShape.sized(layers=16, width=2048, heads=16)

TABLES = [list(range(1 + row * BLOCKS_EACH, 1 + (row + 1) * BLOCKS_EACH)) for row in range(BATCH)]
PROMPT_TOKENS = len(encode("question 00: "))


def run() -> list[Figure]:
    """Measure every format on the CPU with the full preset and a wider model, and on a GPU where there is one."""
    torch.set_num_threads(1)
    keep_memory()
    cpu = torch.device("cpu")
    figures = _table("full, cpu, 1 thread", PRESETS["full"], cpu) + _table("2x512, cpu, 1 thread", WIDE, cpu)
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
    texts = _greedy(models["fp32"])
    figures = []
    for precision, model in models.items():
        rate, base = median(rates[precision]), median(rates["fp32"])
        figures.append(
            Figure(
                f"{precision} tokens/s at batch {BATCH} ({what})", round(rate, 1), "tokens/s", RUNS, COMMAND,
                peer="fp32", peer_value=round(base, 1), ratio=round(rate / base, 2),
            )
        )  # fmt: skip
        agreed = _agreeing(model, texts) / (BATCH * TEXT_TOKENS)
        figures.append(
            Figure(
                f"{precision} greedy tokens equal to fp32's ({what})", round(agreed, 4), "ratio", BATCH * TEXT_TOKENS,
                COMMAND, *(("= 1", agreed == 1.0) if precision == "fp32" else ("", None)),
            )
        )  # fmt: skip
    return figures


def _tokens_per_s(model: Transformer) -> float:
    model.compute([Chunk([65], 127, table) for table in TABLES]).cpu()
    began = time.perf_counter()
    steps = 0
    while (spent := time.perf_counter() - began) < MEASURE_S:
        model.compute([Chunk([65], 128 + steps % 128, table) for table in TABLES]).cpu()
        steps += 1
    return BATCH * steps / spent


def _greedy(model: Transformer) -> list[list[int]]:
    """Return the tokens of some prompts, each with the model's own greedy text after it."""
    texts = [list(encode(f"question {number:02}: ")) for number in range(BATCH)]
    for likeliest in _walk(model, texts):
        for text, token in zip(texts, likeliest, strict=True):
            text.append(token)
    return texts


def _agreeing(model: Transformer, texts: list[list[int]]) -> int:
    """Count at how many positions of the answers the model would choose the same token."""
    return sum(
        token == text[PROMPT_TOKENS + step]
        for step, likeliest in enumerate(_walk(model, texts))
        for token, text in zip(likeliest, texts, strict=True)
    )


def _walk(model: Transformer, texts: list[list[int]]) -> Iterator[list[int]]:
    """Yield the likeliest next token of every text, at each position of the answers."""
    computed, end = 0, PROMPT_TOKENS
    for _ in range(TEXT_TOKENS):
        chunks = [Chunk(text[computed:end], computed, table) for text, table in zip(texts, TABLES, strict=True)]
        yield model.compute(chunks).argmax(-1).tolist()
        computed, end = end, end + 1
