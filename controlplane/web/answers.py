"""How the API answers: JSON without numbers that JSON has not, and problem documents (RFC 9457)."""

from math import isfinite
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse


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
    return JSONResponse(body, status, media_type="application/problem+json")
