"""Which stored prompt is nearly the one that was asked: MinHash signatures in a locality-sensitive index (datasketch).

Prompts are compared by their word triples, and only within a family of equal model and parameters.
"""

from collections.abc import Iterator

from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped]

PERMUTATIONS = 64
"""Hashes of a signature; the similarity is estimated to within about 1 / sqrt(64) = 12 % (one standard error)."""
WORDS_TOGETHER = 3


class NearIndex:
    """Signatures of stored prompts."""

    def __init__(self, least_ratio: float) -> None:
        """Find prompts whose Jaccard similarity is about ``least_ratio`` (0..1) or more."""
        self._least_ratio = least_ratio
        self._index = MinHashLSH(threshold=least_ratio, num_perm=PERMUTATIONS)
        self._signatures: dict[str, tuple[str, MinHash]] = {}

    def __len__(self) -> int:
        return len(self._signatures)

    def add(self, key: str, family: str, text: str) -> None:
        """Remember a stored prompt."""
        if key in self._signatures:
            return
        signature = _signature(family, text)
        self._signatures[key] = (family, signature)
        self._index.insert(key, signature, check_duplication=False)

    def discard(self, key: str) -> None:
        """Forget a prompt whose answer is gone."""
        if self._signatures.pop(key, None) is not None:
            self._index.remove(key)

    def nearest(self, family: str, text: str) -> tuple[str, float] | None:
        """Return the key of the most similar stored prompt of this family and its similarity, or None."""
        if not self._signatures:
            return None
        asked = _signature(family, text)
        best: tuple[str, float] | None = None
        for key in self._index.query(asked):
            its_family, signature = self._signatures[str(key)]
            ratio = float(asked.jaccard(signature)) if its_family == family else 0.0
            if ratio >= self._least_ratio and (best is None or ratio > best[1]):
                best = (str(key), ratio)
        return best


def _signature(family: str, text: str) -> MinHash:
    signature = MinHash(num_perm=PERMUTATIONS)
    signature.update_batch([f"{family}:{shingle}".encode() for shingle in shingles(text)])
    return signature


def shingles(text: str) -> Iterator[str]:
    """Yield each run of three words, without regard to case; the whole text when it is shorter."""
    words = text.casefold().split()
    for at in range(max(len(words) - WORDS_TOGETHER + 1, 1)):
        yield " ".join(words[at : at + WORDS_TOGETHER])
