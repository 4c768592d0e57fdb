"""W3C trace context: taken from a request, passed on with its answer, and exported as OpenTelemetry spans when asked.

``Accounting`` opens a span for each request and ends it with what it knows by then. Without an OTLP endpoint in the
environment nothing is exported and OpenTelemetry is not imported. Format: https://www.w3.org/TR/trace-context/.
"""

import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""OpenTelemetry's own settings; either one turns the export on."""
SPAN_NAME = "llm_request"
"""vLLM's name for the span of one request."""
EXPORT_TIMEOUT_S = 2.0
"""Longest wait for the collector, so that a dead one does not hold up the endpoint's stop."""
MAX_TRACEPARENT = 128
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One hop of a trace."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    flags: str = "00"
    """Two hexadecimal digits; the lowest bit says that the trace is recorded."""

    @property
    def header(self) -> str:
        """The ``traceparent`` header that names this hop as the parent."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def parse_traceparent(value: str) -> TraceContext | None:
    """Read a ``traceparent`` header.

    Returns:
        The caller's hop; None when the header is not valid and a new trace begins.
    """
    found = _TRACEPARENT.fullmatch(value) if len(value) <= MAX_TRACEPARENT else None
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, flags)


class Span(Protocol):
    """The time that one request takes here."""

    @property
    def context(self) -> TraceContext:
        """This hop."""

    def end(self, facts: Mapping[str, str | int | float], error: str | None) -> None:
        """End the span with what is known of the request, and what went wrong."""


class Tracer(Protocol):
    """Makes spans."""

    def begin(self, parent: TraceContext | None) -> Span:
        """Begin a span now, in the caller's trace or in a new one."""

    def close(self) -> None:
        """Hand over what is still held."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A span that is passed on but recorded nowhere."""

    context: TraceContext

    def end(self, facts: Mapping[str, str | int | float], error: str | None) -> None:
        """Keep nothing."""


class PassOn:
    """Passes traces on without recording."""

    def begin(self, parent: TraceContext | None) -> Span:
        """Take the next hop in the caller's trace, or the first of a new one that is not recorded."""
        span_id = f"{random.getrandbits(64) or 1:016x}"
        if parent is None:
            return Hop(TraceContext(f"{random.getrandbits(128) or 1:032x}", span_id))
        return Hop(TraceContext(parent.trace_id, span_id, parent.flags))

    def close(self) -> None:
        """Hold nothing."""


class Recorded:
    """A span that OpenTelemetry records, if its sampler chose it."""

    def __init__(self, span: Any) -> None:
        """Wrap a running OpenTelemetry span."""
        self._span = span

    @property
    def context(self) -> TraceContext:
        """This hop."""
        own = self._span.get_span_context()
        return TraceContext(f"{own.trace_id:032x}", f"{own.span_id:016x}", f"{int(own.trace_flags):02x}")

    def end(self, facts: Mapping[str, str | int | float], error: str | None) -> None:
        """End the span and leave it to the exporter's thread."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an optional extra

        self._span.set_attributes(facts)
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class OtlpTracer:
    """Exports spans over OTLP/HTTP, as OpenTelemetry's environment variables say."""

    def __init__(self, service: str, instance: str) -> None:
        """Start the exporter's thread.

        Raises:
            ImportError: OpenTelemetry's SDK or exporter is missing.
        """
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", service), "service.instance.id": instance}
        self._provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("controlplane.target")

    def begin(self, parent: TraceContext | None) -> Span:
        """Begin a server span under the caller's."""
        from opentelemetry import trace  # noqa: PLC0415 - an optional extra

        around = None
        if parent is not None:
            hop = trace.SpanContext(
                int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True,
                trace_flags=trace.TraceFlags(int(parent.flags, 16)),
            )  # fmt: skip
            around = trace.set_span_in_context(trace.NonRecordingSpan(hop))
        return Recorded(self._tracer.start_span(SPAN_NAME, context=around, kind=trace.SpanKind.SERVER))

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def tracer_for(service: str, instance: str) -> tuple[Tracer, str | None]:
    """Choose how spans leave this process.

    Returns:
        The tracer, and a warning when the export was asked for and cannot be had.
    """
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return PassOn(), None
    try:
        return OtlpTracer(service, instance), None
    except ImportError as error:
        return PassOn(), f"spans are not exported: {error}; pip install 'controlplane[tracing]'"
