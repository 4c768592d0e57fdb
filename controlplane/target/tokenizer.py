"""Byte-level tokenizer: one token is one byte of UTF-8, plus the two markers a model needs."""

BOS = 256
"""Begins every prompt."""
EOS = 257
"""Ends an answer."""
VOCABULARY = 264
"""256 bytes, BOS, EOS, and padding up to a multiple of 8 (never chosen)."""


def encode(text: str) -> tuple[int, ...]:
    """Turn text into tokens, with the begin marker first."""
    return (BOS, *text.encode())
