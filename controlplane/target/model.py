"""A decoder-only transformer: RMSNorm, RoPE, grouped-query attention, SwiGLU; paged KV cache; seeded random weights.

The engine calls it from its one worker thread. It decides nothing: it turns tokens and block tables into logits.

Equal requests give bit-equal logits on a CPU whatever else is in the batch. Three rules make it so: a decode batch is
padded to a multiple of ``ROW_TILE`` rows, since a matrix product's summing order changes with very few rows; sequences
attend in groups of equal padded length, so that no neighbour changes the length of a sum; prompts are computed one by
one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from controlplane.target.kv import BLOCK_TOKENS
from controlplane.target.spec import ModelShape
from controlplane.target.tokenizer import EOS, VOCABULARY

ROW_TILE = 8
"""Decode batches are padded to a multiple of this many rows."""
LENGTH_TILE_BLOCKS = 4
"""Attention lengths are padded to a multiple of this many blocks."""
NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0
"""The frequency base of rotary embeddings (RoFormer, arXiv:2104.09864)."""
PRINTABLE = range(32, 127)
"""Bytes that the output bias favours, so that answers of random weights are readable text."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One block's weights, each stored [in, out]."""

    attention_norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Group:
    """Sequences of one padded length that attend together."""

    rows: Tensor | None
    """Row of each sequence in the batch; None when the group is the whole batch in order."""
    tables: Tensor
    """[sequences, blocks] block numbers."""
    mask: Tensor
    """[sequences, 1, 1, queries, keys]: 0 where a query may look, else -inf."""


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


def best_device() -> torch.device:
    """Choose CUDA where there is a device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Transformer:
    """The model with its weights and KV cache on one device."""

    def __init__(self, shape: ModelShape, num_blocks: int, seed: int, device: torch.device | None = None) -> None:
        """Draw the weights from ``seed`` and lay out a cache of ``num_blocks`` blocks beside the null block."""
        self.shape = shape
        self.device = device or best_device()
        draw = _Weights(torch.Generator().manual_seed(seed), self.device)
        self._embedding = draw.matrix(VOCABULARY, shape.width, scale=1.0)
        self._layers = [draw.layer(shape) for _ in range(shape.layers)]
        self._norm = torch.ones(shape.width, device=self.device)
        self._head = draw.matrix(shape.width, VOCABULARY, scale=2.0 / math.sqrt(shape.width))
        self._bias = _output_bias(self.device)
        self._rotations = _rotations(shape, self.device)
        cache = (2, num_blocks + 1, BLOCK_TOKENS, shape.kv_heads, shape.head_dim)
        self._cache = [torch.zeros(cache, device=self.device) for _ in range(shape.layers)]
        self._flat = [layer.view(2, -1, shape.kv_heads, shape.head_dim) for layer in self._cache]
        self._keys_at = torch.arange(shape.max_len + LENGTH_TILE_BLOCKS * BLOCK_TOKENS, device=self.device)

    @torch.inference_mode()
    def prefill(self, tokens: Sequence[int], start: int, blocks: Sequence[int]) -> Tensor:
        """Compute one prompt, or a chunk of one.

        Args:
            tokens: the chunk's tokens.
            start: position of the first of them.
            blocks: the sequence's blocks.

        Returns:
            [vocabulary] logits after the last token.
        """
        positions = torch.arange(start, start + len(tokens), device=self.device)
        tables = self._tensor([_padded(blocks, start + len(tokens))])
        batch = Batch(
            tokens=self._tensor(tokens),
            rotations=self._rotations[positions],
            slots=tables[0][positions // BLOCK_TOKENS] * BLOCK_TOKENS + positions % BLOCK_TOKENS,
            groups=(Group(None, tables, self._mask(positions.unsqueeze(0), tables)),),
        )
        return self._logits(self._forward(batch)[-1:])[0]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], positions: Sequence[int], blocks: Sequence[Sequence[int]]) -> Tensor:
        """Advance several sequences by one token.

        Args:
            tokens: the newest token of each sequence.
            positions: its position.
            blocks: each sequence's blocks.

        Returns:
            [sequences, vocabulary] logits.
        """
        count = len(tokens)
        padding = -count % ROW_TILE
        rows = [*positions, *([0] * padding)]
        slots = [
            table[at // BLOCK_TOKENS] * BLOCK_TOKENS + at % BLOCK_TOKENS
            for table, at in zip(blocks, positions, strict=True)
        ]
        batch = Batch(
            tokens=self._tensor([*tokens, *([0] * padding)]),
            rotations=self._rotations[self._tensor(rows)],
            slots=self._tensor([*slots, *([0] * padding)]),
            groups=self._groups(positions, blocks, whole=padding == 0),
        )
        return self._logits(self._forward(batch))[:count]

    def _groups(self, positions: Sequence[int], blocks: Sequence[Sequence[int]], *, whole: bool) -> tuple[Group, ...]:
        by_length: dict[int, list[int]] = {}
        tables = [_padded(table, at + 1) for table, at in zip(blocks, positions, strict=True)]
        for row, table in enumerate(tables):
            by_length.setdefault(len(table), []).append(row)
        groups = []
        for rows in by_length.values():
            group_tables = self._tensor([tables[row] for row in rows])
            mask = self._mask(self._tensor([[positions[row]] for row in rows]), group_tables)
            alone = whole and len(by_length) == 1
            groups.append(Group(None if alone else self._tensor(rows), group_tables, mask))
        return tuple(groups)

    def _mask(self, positions: Tensor, tables: Tensor) -> Tensor:
        keys = self._keys_at[: tables.shape[1] * BLOCK_TOKENS]
        hidden = keys > positions.unsqueeze(-1)
        mask = torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, -torch.inf)
        return mask[:, None, None]

    def _forward(self, batch: Batch) -> Tensor:
        shape = self.shape
        queries, keys = shape.heads, shape.heads + shape.kv_heads
        hidden = self._embedding[batch.tokens]
        for number, layer in enumerate(self._layers):
            normed = functional.rms_norm(hidden, (shape.width,), layer.attention_norm, NORM_EPSILON)
            heads = (normed @ layer.qkv).view(len(hidden), -1, shape.head_dim)
            turned = _rotate(heads[:, :keys], batch.rotations)
            self._flat[number][0].index_copy_(0, batch.slots, turned[:, queries:])
            self._flat[number][1].index_copy_(0, batch.slots, heads[:, keys:])
            hidden = hidden + self._attention(number, turned[:, :queries], batch.groups) @ layer.out
            normed = functional.rms_norm(hidden, (shape.width,), layer.mlp_norm, NORM_EPSILON)
            gate, up = (normed @ layer.gate_up).chunk(2, dim=-1)
            hidden = hidden + (functional.silu(gate) * up) @ layer.down
        return hidden

    def _attention(self, number: int, query: Tensor, groups: tuple[Group, ...]) -> Tensor:
        if groups[0].rows is None:
            return self._attend(number, query, groups[0]).reshape(len(query), -1)
        mixed = query.new_zeros(len(query), self.shape.width)
        for group in groups:
            if group.rows is not None:
                mixed.index_copy_(0, group.rows, self._attend(number, query[group.rows], group))
        return mixed

    def _attend(self, number: int, query: Tensor, group: Group) -> Tensor:
        """Attend from [sequences * queries] rows to each sequence's cached keys."""
        shape = self.shape
        sequences, length = len(group.tables), group.mask.shape[-1]
        per_key = shape.heads // shape.kv_heads
        past = self._cache[number][:, group.tables].view(2, sequences, length, shape.kv_heads, -1)
        # Always copied: a strided view for one sequence and a copy for several would sum in different orders.
        key, value = past.permute(0, 1, 3, 2, 4).contiguous().view(2, -1, length, shape.head_dim)
        split = query.view(sequences, -1, shape.kv_heads, per_key, shape.head_dim).permute(0, 2, 3, 1, 4)
        flat = split.reshape(sequences * shape.kv_heads, -1, shape.head_dim)
        scores = torch.bmm(flat, key.transpose(1, 2)).mul_(1.0 / math.sqrt(shape.head_dim))
        masked = scores.view(sequences, shape.kv_heads, per_key, -1, length).add_(group.mask)
        mixed = torch.bmm(masked.softmax(-1).view(scores.shape), value).view(split.shape)
        return mixed.permute(0, 3, 1, 2, 4).reshape(-1, shape.width)

    def _logits(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, (self.shape.width,), self._norm, NORM_EPSILON) @ self._head + self._bias

    def _tensor(self, values: Sequence[int] | Sequence[Sequence[int]]) -> Tensor:
        return torch.tensor(values, device=self.device)


@dataclass(frozen=True, slots=True)
class _Weights:
    generator: torch.Generator
    device: torch.device

    def matrix(self, rows: int, columns: int, scale: float) -> Tensor:
        return (torch.randn(rows, columns, generator=self.generator) * scale).to(self.device)

    def layer(self, shape: ModelShape) -> Layer:
        width, fan = shape.width, 1.0 / math.sqrt(shape.width)
        return Layer(
            attention_norm=torch.ones(width, device=self.device),
            qkv=self.matrix(width, (shape.heads + 2 * shape.kv_heads) * shape.head_dim, fan),
            out=self.matrix(width, width, fan),
            mlp_norm=torch.ones(width, device=self.device),
            gate_up=self.matrix(width, 2 * shape.hidden, fan),
            down=self.matrix(shape.hidden, width, 1.0 / math.sqrt(shape.hidden)),
        )


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
    pairs = torch.view_as_complex(heads.reshape(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotations).flatten(-2)


def _padded(blocks: Sequence[int], tokens: int) -> list[int]:
    """Take the blocks that hold ``tokens`` tokens, and pad with the null block to the length tile."""
    tiles = -(-tokens // (BLOCK_TOKENS * LENGTH_TILE_BLOCKS))
    table = list(blocks[: tiles * LENGTH_TILE_BLOCKS])
    return table + [0] * (tiles * LENGTH_TILE_BLOCKS - len(table))
