"""Byte-level tokenizer: one token is one byte of UTF-8, plus the two markers a model needs."""

from collections.abc import Sequence

BOS = 256
"""Begins every prompt."""
EOS = 257
"""Ends an answer."""
VOCABULARY = 264
"""256 bytes, BOS, EOS, and padding up to a multiple of 8 (never chosen)."""
NAMES = {BOS: "<s>", EOS: "</s>"}


def encode(text: str) -> tuple[int, ...]:
    """Turn text into tokens, with the begin marker first.

    Raises:
        UnicodeEncodeError: the text has half of a surrogate pair, which UTF-8 cannot say.
    """
    return (BOS, *text.encode())


def decode(tokens: Sequence[int]) -> str:
    """Turn tokens into text; markers are left out, and bytes that are not UTF-8 become replacement characters."""
    return bytes(token for token in tokens if token < BOS).decode(errors="replace")


def token_bytes(token: int) -> bytes:
    """Return the bytes that one token stands for; a marker's are those of its name."""
    return bytes([token]) if token < BOS else NAMES.get(token, f"<pad{token}>").encode()
