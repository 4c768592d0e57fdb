"""How the API answers: JSON without numbers that JSON has not, and problem documents (RFC 9457)."""

from math import isfinite
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

RETRY_AFTER_S = 2
"""What is not possible now (a store that does not answer, most of all) is tried again by then."""


def json_answer(value: object, status: int = 200) -> JSONResponse:
    """Answer with a value as JSON; a bound that is endless (a P99 beyond the last bucket) has no number there: null."""
    return JSONResponse(_finite(jsonable_encoder(value)), status)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def problem(status: int, what: str, why: str = "", fix: str = "", **more: object) -> JSONResponse:
    """Answer with what is wrong, why, and the way out."""
    body = {"type": "about:blank", "title": what, "status": status, "detail": why, "fix": fix, **more}
    headers = {"retry-after": str(RETRY_AFTER_S)} if status == 503 else None
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def bounded(limit: int) -> int:
    """Return how many items of a list are given."""
    return max(1, min(limit, 500))
