"""The probes of a policy page: every kind can be written, and what is wrong is told with its line."""

from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.errors import PolicyError
from controlplane.policy.load import Loaded, loads

TOP = 'service: s\nfleet: { pools: { primary: { endpoints: { static: ["http://10.0.0.1:8000"] } } } }\n'


def page(text: str) -> Loaded:
    return loads(TOP + text, Path("controlplane.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        page(text)
    return [f"{problem.where} {problem.what}; {problem.fix}" for problem in caught.value.problems]


def test_every_kind_of_probe_can_be_written() -> None:
    policy = page(
        "probes:\n"
        "  - http: { path: /health, every: 1s, jitter: 20%, failures: 5, successes: 2, status: 204, body: ok }\n"
        "  - tcp: { every: 2s, timeout: 200ms, jitter: 5%, failures: 2, successes: 3 }\n"
        "  - inference: { stream: true, expect: pong }\n"
        "  - metrics: {}\n"
        '  - host: { page: "http://{host}:9100/metrics" }\n'
        '  - gpu: { page: "http://{host}:9400/metrics", every: 5s }\n'
        '  - logs: { file: "logs/{endpoint}.log", engine: true }\n'
        '  - promql: { url: "http://prom:9090", over: 1m, queries: { queue_depth: sum(x) by (instance) } }\n'
        '  - events: { api: "http://127.0.0.1:8001", namespace: llm, selector: app=vllm }\n'
    ).policy
    http, tcp, inference, _, host, gpu, logs, promql, events = policy.probes
    assert http.http is not None
    assert (http.http.jitter, http.http.failures, http.http.successes) == (0.2, 5, 2)
    assert tcp.tcp is not None
    assert tcp.given is tcp.tcp
    assert (tcp.tcp.every, tcp.tcp.timeout) == (timedelta(seconds=2), timedelta(milliseconds=200))
    assert (tcp.tcp.jitter, tcp.tcp.failures, tcp.tcp.successes) == (0.05, 2, 3)
    assert inference.inference is not None
    assert inference.inference.stream
    assert host.host is not None
    assert gpu.gpu is not None
    assert gpu.gpu.every == timedelta(seconds=5)
    assert logs.logs is not None
    assert logs.logs.engine
    assert promql.promql is not None
    assert promql.promql.queries == {"queue_depth": "sum(x) by (instance)"}
    assert events.events is not None
    assert events.events.namespace == "llm"


def test_a_query_for_no_signal_is_refused_with_the_one_that_was_meant() -> None:
    (problem,) = problems('probes:\n  - promql: { url: "http://p:9090", queries: { queue_dept: x } }\n')
    assert problem.startswith("controlplane.yaml:4 unknown key")
    assert "did you mean `queue_depth`?" in problem


def test_an_address_without_a_scheme_is_refused() -> None:
    assert (
        "write `http://p:9090`" in problems("probes:\n  - promql: { url: 'p:9090', queries: { queue_depth: x } }\n")[0]
    )
    assert "is no URL" in problems('probes:\n  - gpu: { page: "{host}:9400/metrics" }\n')[0]


def test_logs_need_a_file() -> None:
    assert "`probes[0].logs.file` is missing" in problems("probes:\n  - logs: {}\n")[0]


@pytest.mark.parametrize("engine", ["auto", "vllm", "sglang", "tgi", "triton", "llamacpp", "ray", "reference"])
def test_every_engine_can_be_named(engine: str) -> None:
    text = TOP.replace("fleet: { pools", f"fleet: {{ engine: {engine}, pools")
    assert loads(text, Path("c.yaml")).policy.fleet.engine == engine


def test_an_engine_that_nobody_knows_is_refused() -> None:
    text = TOP.replace("fleet: { pools", "fleet: { engine: gpt, pools")
    with pytest.raises(PolicyError) as caught:
        loads(text, Path("c.yaml"))
    assert "one of: auto, vllm" in caught.value.problems[0].fix


def test_thresholds_of_every_unit_can_be_written() -> None:
    policy = page(
        "thresholds:\n"
        "  gpu_temperature: { healthy: 75, warn: 80, breach: 87, window: 1m, for: 2m }\n"
        "  preemptions_rate: { healthy: 0, warn: 0.1, breach: 1, window: 1m, for: 1m }\n"
        "  token_progress: { healthy: 100%, warn: 99%, breach: 50%, window: 10s, for: 5s }\n"
    ).policy
    assert policy.thresholds["gpu_temperature"].breach == 87.0
    assert policy.thresholds["token_progress"].breach == 0.5
