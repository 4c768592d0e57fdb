"""What a line of an engine's log says: JSON, vLLM's and SGLang's own forms, `key=value`, the kernel's; pure.

A line that is none of these is a message without a level: logs are written by people, and none of them is an error.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.signals.engines import FATAL_XIDS


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it was understood."""

    message: str
    level: str = ""
    """`debug`, `info`, `warning`, `error`, `critical`, or empty."""
    request_id: str = ""
    queue_depth: float | None = None
    running: float | None = None
    processing_time_s: float | None = None
    status: int | None = None
    """The HTTP status of a request, where the line tells of one."""
    fatal: bool = False
    """The engine, or its GPU, says that it is dying."""

    @property
    def is_error(self) -> bool:
        """Tell whether the line's level is error or worse."""
        return self.level in ("error", "critical")


FATAL = (
    "EngineCore encountered a fatal error", "EngineCore encountered an issue", "EngineCore failed to start",
    "Engine core initialization failed", "AsyncLLM output_handler failed", "died unexpectedly (exit code",
    "No available memory for the cache blocks", "To serve at least one request with the model's max seq len",
    "CUDA out of memory", "CUDA error: an illegal memory access", "CUDA error: uncorrectable ECC error",
    "CUDA error: device-side assert", "CUDA error: unspecified launch failure", "no CUDA-capable device is detected",
    "CUDA driver initialization failed", "Watchdog caught collective operation timeout",
    "Driver/library version mismatch", "GPU has fallen off the bus",
)  # fmt: skip
"""What vLLM 0.32, PyTorch, CUDA, NCCL and the driver write when they cannot go on."""

_LEVELS = {
    "DEBUG": "debug", "INFO": "info", "WARNING": "warning", "WARN": "warning", "ERROR": "error", "CRITICAL": "critical",
    "FATAL": "critical", "PANIC": "critical", "TRACE": "debug",
}  # fmt: skip
_VLLM = re.compile(
    r"(?:\((?P<process>[\w.-]+) pid=\d+\)\s+)?(?P<level>[A-Z]+) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?(?P<message>.*)"
)
_VLLM_STATS = re.compile(r"Running: (?P<running>\d+) reqs, Waiting: (?P<waiting>\d+) reqs")
_SGLANG_STATS = re.compile(r"#running-req: (?P<running>\d+).*#queue-req: (?P<waiting>\d+)")
_ACCESS = re.compile(r'(?P<level>[A-Z]+):\s+\S+ - "(?P<request>[A-Z]+ \S+) HTTP/[\d.]+" (?P<status>\d{3})')
_XID = re.compile(r"NVRM: Xid \((?:PCI:)?[0-9a-fA-F:.]+\): (\d+),")
_PAIR = re.compile(r'(?<![\w.])(request_id|queue_depth|processing_time(?:_ms|_s)?|level|status)=("[^"]*"|\S+)')
_PLAIN_LEVEL = re.compile(r"\b(DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b")

_MAX = 4000
"""A longer line is cut: what it says stands at its beginning."""


def read_line(text: str) -> Line:
    """Read one line; never raises, whatever it holds."""
    text = text.strip()[:_MAX]
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, Mapping):
            return _structured(found)
    return _plain(text)


def _structured(found: Mapping[str, Any]) -> Line:
    message = str(_first(found, "message", "msg", "event") or "")
    level = _LEVELS.get(str(_first(found, "level", "levelname", "severity", "log.level") or "").upper(), "")
    status = _number(_first(found, "status", "status_code"))
    return Line(
        message=message,
        level=level,
        request_id=str(found.get("request_id") or ""),
        queue_depth=_number(found.get("queue_depth")),
        running=_number(_first(found, "running", "requests_running")),
        processing_time_s=_seconds(found),
        status=None if status is None else int(status),
        fatal=_fatal(f"{message} {found.get('error', '')} {found.get('exc_info', '')}"),
    )


def _plain(text: str) -> Line:
    fatal = _fatal(text)
    access = _ACCESS.match(text)
    if access:
        return Line(access["request"], _LEVELS.get(access["level"], ""), status=int(access["status"]), fatal=fatal)
    vllm = _VLLM.match(text)
    level = _LEVELS.get(vllm["level"], "") if vllm else ""
    message = vllm["message"] if vllm else text
    pairs = {key: value.strip('"') for key, value in _PAIR.findall(message)}
    if not level:
        plain = _PLAIN_LEVEL.search(text[:120])
        level = _LEVELS.get(pairs.get("level", str(plain[1]) if plain else "").upper(), "")
    stats = _VLLM_STATS.search(message) or _SGLANG_STATS.search(message)
    status = _number(pairs.get("status"))
    return Line(
        message=message,
        level=level,
        request_id=pairs.get("request_id", ""),
        queue_depth=float(stats["waiting"]) if stats else _number(pairs.get("queue_depth")),
        running=float(stats["running"]) if stats else None,
        processing_time_s=_seconds(pairs),
        status=None if status is None else int(status),
        fatal=fatal,
    )


def _fatal(text: str) -> bool:
    xid = _XID.search(text)
    return any(mark in text for mark in FATAL) or (xid is not None and int(xid[1]) in FATAL_XIDS)


def _first(found: Mapping[str, Any], *keys: str) -> Any:
    return next((found[key] for key in keys if found.get(key) is not None), None)


def _number(value: Any) -> float | None:
    """Read a count or a time; None for what is none, or cannot be: negative, endless, not a number."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 1e12 else None


def _seconds(found: Mapping[str, Any]) -> float | None:
    """Return the processing time: in seconds, unless its name or its text says milliseconds."""
    for key, scale in (("processing_time_ms", 0.001), ("processing_time_s", 1.0), ("processing_time", 1.0)):
        text = str(found.get(key, ""))
        if text.endswith("ms"):
            number = _number(text[:-2])
            return None if number is None else number * 0.001
        number = _number(text.removesuffix("s"))
        if number is not None:
            return number * scale
    return None
