"""Trace context: taken, passed on, and exported over OTLP when the environment says where to."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from controlplane.target import tracing
from controlplane.target.tracing import OtlpTracer, PassOn, TraceContext, parse_traceparent, tracer_for
from tests.support.endpoints import ask, served

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
WISH = {"prompt": "hi", "max_tokens": 3, "ignore_eos": True}


def test_a_valid_traceparent_is_read_and_an_invalid_one_begins_a_new_trace() -> None:
    assert parse_traceparent(PARENT) == TraceContext(TRACE_ID, "00f067aa0ba902b7", "01")
    assert parse_traceparent(f"cc{PARENT[2:]}-what-comes-later") == TraceContext(TRACE_ID, "00f067aa0ba902b7", "01")
    for bad in (
        "", "00", PARENT.upper(), f"ff{PARENT[2:]}", f"{PARENT}-extra", PARENT.replace("00f067aa0ba902b7", "0" * 16),
        PARENT.replace(TRACE_ID, "0" * 32), PARENT + "-" + "x" * 500,
    ):  # fmt: skip
        assert parse_traceparent(bad) is None, bad


async def test_a_trace_goes_on_in_the_answer_and_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async with served() as (client, _):
        _, _, headers = await ask(client, "/v1/completions", WISH, traceparent=PARENT)
        _, _, fresh = await ask(client, "/v1/completions", WISH, traceparent="rubbish")
    hop = parse_traceparent(headers["traceparent"])
    assert hop is not None
    assert (hop.trace_id, hop.flags) == (TRACE_ID, "01")
    assert hop.span_id != "00f067aa0ba902b7"
    assert parse_traceparent(fresh["traceparent"]) is not None
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[0]["trace_id"], lines[0]["span_id"]) == (hop.trace_id, hop.span_id)


def test_without_an_endpoint_in_the_environment_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    tracer, warning = tracer_for("service", "instance")
    assert isinstance(tracer, PassOn)
    assert warning is None


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Run an OTLP collector that keeps what it gets."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_spans_are_exported_over_otlp_with_what_vllms_spans_say(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: PLC0415

    with collector() as (url, bodies):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setattr(tracing, "EXPORT_TIMEOUT_S", 60.0)
        tracer, warning = tracer_for("controlplane.target", "endpoint-0")
        assert isinstance(tracer, OtlpTracer)
        assert warning is None
        async with served(tracer) as (client, _):
            _, _, headers = await ask(client, "/v1/completions", WISH, traceparent=PARENT, **{"x-request-id": "abc"})
        await asyncio.to_thread(tracer.close)
    hop = parse_traceparent(headers["traceparent"])
    assert hop is not None
    (resource,) = ExportTraceServiceRequest.FromString(b"".join(bodies)).resource_spans
    (span,) = resource.scope_spans[0].spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        TRACE_ID, hop.span_id, "00f067aa0ba902b7",
    )  # fmt: skip
    facts = {fact.key: fact.value for fact in span.attributes}
    assert span.name == "llm_request"
    assert facts["gen_ai.request.id"].string_value == "abc"
    assert facts["gen_ai.usage.completion_tokens"].int_value == 3
    assert facts["gen_ai.latency.time_to_first_token"].double_value > 0
