"""A decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU; paged KV cache; seeded random weights.

The engine calls it from its one worker thread. It decides nothing: it turns tokens and block tables into logits.

Equal tokens at equal positions give bit-equal keys, values and logits on a CPU, whether they are computed alone, beside
others, as part of a prompt, again after a preemption, or found in the prefix cache. Two rules make it so. Rows are
padded to a multiple of ``ROW_TILE``, since a matrix product's summing order changes with very few rows. And every row
attends as a decoding row would: by itself, over keys padded to the length that its own position asks for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from controlplane.target.errors import TargetError
from controlplane.target.kv import BLOCK_TOKENS
from controlplane.target.precision import COMPUTE, Projection, projection, require
from controlplane.target.spec import ModelShape
from controlplane.target.tokenizer import EOS, VOCABULARY

ROW_TILE = 8
"""Batches are padded to a multiple of this many rows."""
LENGTH_TILE = 64
"""Attention lengths are padded to a multiple of this many tokens; whole blocks."""
NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0
"""The frequency base of rotary embeddings (RoFormer, arXiv:2104.09864)."""
PRINTABLE = range(32, 127)
"""Bytes that the output bias favours, so that answers of random weights are readable text."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence that one forward pass computes."""

    tokens: Sequence[int]
    start: int
    """Position of the first of them."""
    blocks: Sequence[int]
    """The sequence's blocks, enough for the last of them."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's weights."""

    attention_norm: Tensor
    qkv: Projection
    out: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection


@dataclass(frozen=True, slots=True)
class Group:
    """Single rows of different sequences whose padded length is the same; they attend together."""

    rows: Tensor | None
    """Row of each sequence in the batch; None when the group is the whole batch in order."""
    tables: Tensor
    """[sequences, blocks] block numbers."""
    mask: Tensor
    """[sequences, 1, keys]: 0 where a query may look, else -inf."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of one sequence."""

    first: int
    end: int
    """Rows ``first`` to ``end``, the end excluded."""
    table: Tensor
    """[blocks] block numbers up to the longest padded length."""
    tiles: tuple[tuple[int, int, Tensor], ...]
    """(first row, end row, mask [rows, 1, keys]) of each run of rows with one padded length."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass computes."""

    tokens: Tensor
    """[rows] token numbers."""
    rotations: Tensor
    """[rows, 1, head_dim / 2] complex rotary factors of each row's position."""
    slots: Tensor
    """[rows] where each row's key and value go in the cache."""
    groups: tuple[Group, ...]
    segments: tuple[Segment, ...]
    last: Tensor
    """[chunks, padded] the row after which each chunk's logits are taken."""


def device_named(name: str) -> torch.device:
    """Return a device; ``auto`` is CUDA where there is a device, else the CPU.

    Raises:
        TargetError: this machine, or this build of torch, does not have it.
    """
    gpus = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if gpus else "cpu")
    what = f"cannot serve on {name!r}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TargetError(what, "there is no such device", "Choose auto, cpu, cuda or cuda:N.") from error
    if device.type not in {"cpu", "cuda"}:
        raise TargetError(what, "the reference model runs on CPUs and on CUDA", "Choose auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise TargetError(what, f"torch {torch.__version__} sees {gpus} CUDA devices", "Choose auto or cpu.")
    return device


class Transformer:
    """The model with its weights and KV cache on one device."""

    def __init__(
        self, shape: ModelShape, num_blocks: int, seed: int, device: torch.device | None = None, precision: str = "fp32"
    ) -> None:
        """Draw the weights from ``seed`` and lay out a cache of ``num_blocks`` blocks beside the null block.

        Raises:
            TargetError: the device does not compute in this precision.
        """
        self.shape = shape
        self.device = device or device_named("auto")
        self.precision = precision
        require(precision, self.device)
        dtype = COMPUTE[precision]
        draw = _Weights(torch.Generator().manual_seed(seed), self.device, dtype, precision)
        self._embedding = draw.matrix(VOCABULARY, shape.width, scale=1.0)
        self._layers = [draw.layer(shape) for _ in range(shape.layers)]
        self._norm = draw.ones(shape.width)
        self._head = draw.matrix(shape.width, VOCABULARY, scale=2.0 / math.sqrt(shape.width))
        self._bias = _output_bias(self.device)
        self._rotations = _rotations(shape, self.device)
        # Heads before blocks: gathering a sequence's blocks then gives each head's keys in one piece, without a copy.
        cache = (2, shape.kv_heads, num_blocks + 1, BLOCK_TOKENS * shape.head_dim)
        self._cache = [torch.zeros(cache, device=self.device, dtype=dtype) for _ in range(shape.layers)]
        self._slots = [layer.view(2, shape.kv_heads, -1, shape.head_dim) for layer in self._cache]
        self._gathered = torch.empty(0, device=self.device, dtype=dtype)
        self._keys_at = torch.arange(shape.max_len + LENGTH_TILE, device=self.device)

    @torch.inference_mode()
    def compute(self, chunks: Sequence[Chunk]) -> Tensor:
        """Put the keys and values of every chunk into the cache.

        Args:
            chunks: of different sequences; a decoding sequence's chunk is one token.

        Returns:
            [chunks, vocabulary] logits in fp32 after the last token of each chunk.
        """
        batch = self._batch(chunks)
        hidden = self._forward(batch)
        normed = functional.rms_norm(hidden[batch.last], (self.shape.width,), self._norm, NORM_EPSILON)
        return ((normed @ self._head).float() + self._bias)[: len(chunks)]

    def _batch(self, chunks: Sequence[Chunk]) -> Batch:
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        last: list[int] = []
        segments: list[Segment] = []
        singles: list[tuple[int, Chunk]] = []
        for chunk in chunks:
            first, end = len(tokens), chunk.start + len(chunk.tokens)
            tokens += chunk.tokens
            positions += range(chunk.start, end)
            slots += [chunk.blocks[at // BLOCK_TOKENS] * BLOCK_TOKENS + at % BLOCK_TOKENS for at in positions[first:]]
            last.append(len(tokens) - 1)
            if len(chunk.tokens) == 1:
                singles.append((first, chunk))
            else:
                segments.append(self._segment(chunk, first))
        padding = [0] * (-len(tokens) % ROW_TILE)
        return Batch(
            tokens=self._tensor(tokens + padding),
            rotations=self._rotations[self._tensor(positions + padding)],
            slots=self._tensor(slots + padding),
            groups=self._groups(singles, whole=len(singles) == len(tokens) and not padding),
            segments=tuple(segments),
            last=self._tensor(last + [0] * (-len(last) % ROW_TILE)),
        )

    def _groups(self, singles: Sequence[tuple[int, Chunk]], *, whole: bool) -> tuple[Group, ...]:
        by_length: dict[int, list[tuple[int, Chunk]]] = {}
        for row, chunk in singles:
            by_length.setdefault(_padded_length(chunk.start), []).append((row, chunk))
        groups = []
        for length, members in by_length.items():
            tables = self._tensor([_table(chunk.blocks, length) for _, chunk in members])
            mask = self._mask(self._tensor([chunk.start for _, chunk in members]), length)
            rows = None if whole and len(by_length) == 1 else self._tensor([row for row, _ in members])
            groups.append(Group(rows, tables, mask.unsqueeze(1)))
        return tuple(groups)

    def _segment(self, chunk: Chunk, first: int) -> Segment:
        tiles = []
        at, end = chunk.start, chunk.start + len(chunk.tokens)
        while at < end:
            length = _padded_length(at)
            until = min(length, end)
            row = first + at - chunk.start
            tiles.append((row, row + until - at, self._mask(self._keys_at[at:until], length)[:, None]))
            at = until
        table = self._tensor(_table(chunk.blocks, _padded_length(end - 1)))
        return Segment(first, first + len(chunk.tokens), table, tuple(tiles))

    def _mask(self, positions: Tensor, length: int) -> Tensor:
        """Return [positions, length]: 0 for keys up to the position, -inf beyond."""
        hidden = self._keys_at[:length] > positions.unsqueeze(-1)
        return torch.zeros(hidden.shape, device=self.device, dtype=self._embedding.dtype).masked_fill_(
            hidden, -torch.inf
        )

    def _forward(self, batch: Batch) -> Tensor:
        shape = self.shape
        queries, keys = shape.heads, shape.heads + shape.kv_heads
        hidden = self._embedding[batch.tokens]
        for number, layer in enumerate(self._layers):
            normed = functional.rms_norm(hidden, (shape.width,), layer.attention_norm, NORM_EPSILON)
            heads = layer.qkv(normed).view(len(hidden), -1, shape.head_dim)
            turned = _rotate(heads[:, :keys], batch.rotations)
            self._slots[number][0].index_copy_(1, batch.slots, turned[:, queries:].transpose(0, 1))
            self._slots[number][1].index_copy_(1, batch.slots, heads[:, keys:].transpose(0, 1))
            hidden = hidden + layer.out(self._attention(number, turned[:, :queries], batch))
            normed = functional.rms_norm(hidden, (shape.width,), layer.mlp_norm, NORM_EPSILON)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = hidden + layer.down(functional.silu(gate) * up)
        return hidden

    def _attention(self, number: int, query: Tensor, batch: Batch) -> Tensor:
        if batch.groups and batch.groups[0].rows is None:
            return self._attend_group(number, query, batch.groups[0])
        mixed = query.new_zeros(len(query), self.shape.width)
        for group in batch.groups:
            if group.rows is not None:
                mixed.index_copy_(0, group.rows, self._attend_group(number, query[group.rows], group))
        for segment in batch.segments:
            self._attend_segment(number, query, segment, mixed)
        return mixed

    def _attend_group(self, number: int, query: Tensor, group: Group) -> Tensor:
        """Attend from one row of each sequence [sequences, heads, head_dim] to that sequence's keys."""
        shape = self.shape
        sequences, length = len(group.tables), group.mask.shape[-1]
        past = self._past(number, group.tables.view(-1))
        key, value = past.view(2, shape.kv_heads * sequences, length, shape.head_dim)
        by_head = query.view(sequences, shape.kv_heads, -1, shape.head_dim).transpose(0, 1)
        flat = by_head.reshape(shape.kv_heads * sequences, -1, shape.head_dim)
        scores = torch.bmm(flat, key.transpose(1, 2)).mul_(1.0 / math.sqrt(shape.head_dim))
        scores.view(shape.kv_heads, sequences, -1, length).add_(group.mask)
        mixed = torch.bmm(scores.softmax(-1), value).view(by_head.shape)
        return mixed.transpose(0, 1).reshape(sequences, -1)

    def _attend_segment(self, number: int, query: Tensor, segment: Segment, mixed: Tensor) -> None:
        """Attend from every row of one sequence to its keys, each row with a product of its own, as when decoding."""
        shape = self.shape
        keys, values = self._past(number, segment.table).view(2, shape.kv_heads, -1, shape.head_dim)
        out = mixed.view(len(mixed), shape.kv_heads, -1, shape.head_dim)
        for first, end, mask in segment.tiles:
            rows, length = end - first, mask.shape[-1]
            heads = query[first:end].reshape(rows, shape.kv_heads, -1, shape.head_dim)
            for head in range(shape.kv_heads):
                flat = heads[:, head].contiguous()
                key, value = keys[head, :length], values[head, :length]
                scores = torch.bmm(flat, key.t().expand(rows, -1, -1)).mul_(1.0 / math.sqrt(shape.head_dim))
                out[first:end, head] = torch.bmm(scores.add_(mask).softmax(-1), value.expand(rows, -1, -1))

    def _past(self, number: int, blocks: Tensor) -> Tensor:
        """Gather keys and values of these blocks: [2, kv_heads, blocks, block's numbers], good until the next call.

        One buffer serves all calls: a fresh one each time would cost more in page faults than the products themselves.
        """
        cache = self._cache[number]
        shape = (2, cache.shape[1], len(blocks), cache.shape[3])
        size = math.prod(shape)
        if self._gathered.numel() < size:
            self._gathered = torch.empty(size, device=self.device, dtype=cache.dtype)
        past = self._gathered[:size].view(shape)
        return torch.index_select(cache, 2, blocks, out=past)

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, device=self.device)


@dataclass(frozen=True, slots=True)
class _Weights:
    """Draws weights in fp32, the same for every precision, and rounds them to theirs."""

    generator: torch.Generator
    device: torch.device
    dtype: torch.dtype
    precision: str

    def matrix(self, rows: int, columns: int, scale: float) -> Tensor:
        return (torch.randn(rows, columns, generator=self.generator) * scale).to(self.device, self.dtype)

    def ones(self, width: int) -> Tensor:
        return torch.ones(width, device=self.device, dtype=self.dtype)

    def layer(self, shape: ModelShape) -> Layer:
        width, fan = shape.width, 1.0 / math.sqrt(shape.width)
        return Layer(
            attention_norm=self.ones(width),
            qkv=self._projection(width, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, fan),
            out=self._projection(width, width, fan),
            mlp_norm=self.ones(width),
            gate_up=self._projection(width, 2 * shape.hidden, fan),
            down=self._projection(shape.hidden, width, 1.0 / math.sqrt(shape.hidden)),
        )

    def _projection(self, rows: int, columns: int, scale: float) -> Projection:
        return projection(self.matrix(rows, columns, scale), self.precision)


def _output_bias(device: torch.device) -> Tensor:
    bias = torch.full((VOCABULARY,), -100.0)
    bias[PRINTABLE.start : PRINTABLE.stop] = 0.0
    bias[EOS] = 0.0
    return bias.to(device)


def _rotations(shape: ModelShape, device: torch.device) -> Tensor:
    pairs = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = torch.outer(torch.arange(shape.max_len, dtype=torch.float64), ROPE_BASE**-pairs)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).unsqueeze(1).to(device)


def _rotate(heads: Tensor, rotations: Tensor) -> Tensor:
    pairs = torch.view_as_complex(heads.float().reshape(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotations).flatten(-2).to(heads.dtype)


def _padded_length(position: int) -> int:
    """Return over how many keys the row at a position attends."""
    return (position // LENGTH_TILE + 1) * LENGTH_TILE


def _table(blocks: Sequence[int], length: int) -> list[int]:
    """Take the blocks that hold ``length`` tokens, and pad with the null block."""
    count = length // BLOCK_TOKENS
    table = list(blocks[:count])
    return table + [0] * (count - len(table))
