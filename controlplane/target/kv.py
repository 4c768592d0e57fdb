"""The KV cache's book-keeping: which blocks are free, held or reusable. Pure; the tensors live with the model.

A full block's content is named by a key: a hash over its tokens and all tokens before it. A block that nobody holds
keeps its content until it is handed out again, so that a later request with the same beginning can share it. Block 0
is never handed out: padded table entries and padded batch rows point at it.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

BLOCK_TOKENS = 16
"""Tokens in a block, as vLLM's default."""
KEY_BYTES = 16
"""Length of a block's key: 128 bits of BLAKE2b, so that two prompts never share a block by accident."""


def blocks_for(tokens: int) -> int:
    """Return how many blocks hold this many tokens."""
    return -(-tokens // BLOCK_TOKENS)


def block_key(before: bytes, tokens: Sequence[int]) -> bytes:
    """Name a full block's content.

    Args:
        before: the key of the block before it; empty for the first.
        tokens: its ``BLOCK_TOKENS`` tokens.
    """
    return blake2b(before + array("H", tokens).tobytes(), digest_size=KEY_BYTES).digest()


class BlockPool:
    """Hands out blocks of the KV cache, shares those whose content is asked for again, and takes them back."""

    def __init__(self, num_blocks: int) -> None:
        """Make a pool of ``num_blocks`` usable blocks (beside the null block 0)."""
        self.num_blocks = num_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks + 1))
        """Blocks that nobody holds, the next to be handed out first."""
        self._holders = [0] * (num_blocks + 1)
        self._keys: dict[int, bytes] = {}
        self._by_key: dict[bytes, int] = {}

    @property
    def used(self) -> int:
        """Blocks that are held."""
        return self.num_blocks - len(self._free)

    @property
    def usage_ratio(self) -> float:
        """Share of blocks held, 0..1."""
        return self.used / self.num_blocks

    def take(self, count: int) -> list[int] | None:
        """Hand out blocks for new content, those given back longest ago first.

        Returns:
            The blocks, or None when too few are free (nothing is taken then).
        """
        if count > len(self._free):
            return None
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._holders[block] = 1
            self._forget(block)
        return taken

    def share(self, keys: Iterable[bytes]) -> list[int]:
        """Hold the blocks that have the content of these keys, up to the first that is missing."""
        shared: list[int] = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None:
                break
            self._holders[block] += 1
            self._free.pop(block, None)
            shared.append(block)
        return shared

    def seal(self, block: int, key: bytes) -> None:
        """Note a full block's content, so that others may share it; content that is known already stays where it is."""
        if key not in self._by_key:
            self._by_key[key] = block
            self._keys[block] = key

    def give_back(self, blocks: list[int]) -> None:
        """Let go of blocks and empty the list, so that giving back twice is giving back once.

        The last block goes first: a long prompt loses its end, not its widely shared beginning.
        """
        while blocks:
            block = blocks.pop()
            self._holders[block] -= 1
            if not self._holders[block]:
                self._free[block] = None

    def _forget(self, block: int) -> None:
        key = self._keys.pop(block, None)
        if key is not None:
            del self._by_key[key]
