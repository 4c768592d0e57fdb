"""The KV cache's book-keeping: which blocks are free. Pure; the tensors live with the model.

Block 0 is never handed out: padded table entries and padded batch rows point at it.
"""

BLOCK_TOKENS = 16
"""Tokens in a block, as vLLM's default."""


class BlockPool:
    """Hands out blocks of the KV cache and takes them back."""

    def __init__(self, num_blocks: int) -> None:
        """Make a pool of ``num_blocks`` usable blocks (beside the null block 0)."""
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks, 0, -1))

    @property
    def used(self) -> int:
        """Blocks that are handed out."""
        return self.num_blocks - len(self._free)

    @property
    def usage_ratio(self) -> float:
        """Share of blocks handed out, 0..1."""
        return self.used / self.num_blocks

    def take(self, tokens: int) -> list[int] | None:
        """Reserve room for this many tokens.

        Returns:
            The blocks in order, or None when too few are free (nothing is taken then).
        """
        count = -(-tokens // BLOCK_TOKENS)
        if count > len(self._free):
            return None
        return [self._free.pop() for _ in range(count)]

    def give_back(self, blocks: list[int]) -> None:
        """Return blocks and empty the list, so that giving back twice is giving back once."""
        while blocks:
            self._free.append(blocks.pop())
