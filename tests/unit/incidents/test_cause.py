"""Each cause is named when its evidence is there, and not without it."""

import pytest

from controlplane.fleet.model import Endpoint
from controlplane.incidents.cause import Cause, Clues, EndpointClues, Hint, hints
from controlplane.incidents.clues import ClueBook
from controlplane.incidents.trail import Trail, rose, slope_per_s, spread_s
from controlplane.probes.probe import Failure, Look
from controlplane.slo.threshold import Band
from controlplane.slo.verdict import Evidence, Verdict

NOW = 10_000.0
HOUR = 3600.0


def steps(before: float, after: float) -> Trail:
    """Return five minutes in which a value changed in the last one."""
    return tuple((NOW - 300 + i * 5, before if i < 48 else after) for i in range(61))


def named(clues: Clues) -> dict[Cause, Hint]:
    return {hint.cause: hint for hint in hints(clues)}


def test_a_quiet_fleet_gives_no_hint() -> None:
    calm = {
        "queue_depth": steps(0, 0),
        "request_rate": steps(50, 50),
        "gpu_utilization": steps(0.95, 0.95),
        "tokens_rate": steps(1000, 1000),
        "requests_running": steps(8, 8),
        "network_utilization": steps(0.1, 0.1),
        "memory_utilization": tuple((NOW - 3 * HOUR + i * 60, 0.4) for i in range(180)),
        "token_progress": steps(1.0, 1.0),
    }
    well = EndpointClues("e", "node-a", looks=20, health_ok=True, connect=tuple((NOW - i, 0.001) for i in range(20)))
    assert hints(Clues(NOW, calm, (well,))) == ()


def test_overload_is_a_queue_that_grows_with_the_rate() -> None:
    found = named(Clues(NOW, {"queue_depth": steps(0, 40), "request_rate": steps(20, 60)}))
    assert found[Cause.OVERLOAD].evidence == ("the queue grew from 0 to 40", "requests went from 20.0 /s to 60.0 /s")


def test_a_queue_at_a_steady_rate_is_a_fleet_at_its_top() -> None:
    found = named(Clues(NOW, {"queue_depth": steps(2, 40), "request_rate": steps(20, 20)}))
    assert "at its top" in found[Cause.OVERLOAD].text


def test_a_queue_while_fewer_requests_end_is_no_overload() -> None:
    assert not hints(Clues(NOW, {"queue_depth": steps(0, 40), "request_rate": steps(20, 2)}))


def test_contention_is_a_busy_gpu_with_fewer_tokens_for_each_request() -> None:
    signals = {
        "gpu_utilization": steps(0.9, 0.99),
        "tokens_rate": steps(800, 300),
        "requests_running": steps(8, 8),
    }
    assert Cause.CONTENTION in named(Clues(NOW, signals))
    assert Cause.CONTENTION not in named(Clues(NOW, {**signals, "gpu_utilization": steps(0.3, 0.3)}))
    assert Cause.CONTENTION not in named(Clues(NOW, {**signals, "requests_running": steps(8, 20)}))


def test_a_leak_is_a_slope_over_hours() -> None:
    def trail(per_hour: float, hours: float) -> Trail:
        return tuple((NOW + i * 60, 0.5 + per_hour * i / 60) for i in range(int(hours * 60)))

    found = named(Clues(NOW, {"memory_utilization": trail(0.05, 3)}))
    assert "memory grew by 5.0% an hour for 3.0 h" in found[Cause.MEMORY_LEAK].text
    for other in (trail(0.05, 0.5), trail(-0.05, 3), trail(0.001, 3)):
        assert not hints(Clues(NOW, {"memory_utilization": other}))


def test_memory_that_goes_up_and_down_is_no_leak() -> None:
    saw: Trail = tuple((NOW + i * 60, 0.5 + 0.2 * (i % 30) / 30) for i in range(180))
    assert not hints(Clues(NOW, {"memory_utilization": saw}))


def test_the_network_shows_in_slow_connects_and_in_jitter() -> None:
    slow = EndpointClues("e1", connect=tuple((NOW - i, 0.3) for i in range(5)))
    jumpy = EndpointClues("e2", connect=tuple((NOW - i, 0.01 if i % 3 else 0.4) for i in range(20)))
    found = named(Clues(NOW, endpoints=(slow, jumpy)))
    assert "connecting to e1 takes 300 ms" in found[Cause.NETWORK].evidence
    assert "connecting to e2 varies by 390 ms" in found[Cause.NETWORK].evidence


def test_silence_without_refusal_is_the_network_and_refusal_is_not() -> None:
    silent = EndpointClues("e", looks=6, failures={"timeout": 6})
    refused = EndpointClues("e", looks=6, failures={"timeout": 3, "refused": 3})
    assert Cause.NETWORK in named(Clues(NOW, endpoints=(silent,)))
    assert Cause.NETWORK not in named(Clues(NOW, endpoints=(refused,)))


def test_a_full_link_is_named() -> None:
    assert Cause.BANDWIDTH in named(Clues(NOW, {"network_utilization": steps(0.75, 0.8)}))
    assert Cause.BANDWIDTH not in named(Clues(NOW, {"network_utilization": steps(0.6, 0.65)}))


def test_wrong_answers_after_a_version_change_are_a_mismatch() -> None:
    odd = EndpointClues("e", version_changed_at=NOW - 40, client_errors=4)
    assert "changed its version 40 s ago" in named(Clues(NOW, endpoints=(odd,)))[Cause.VERSION].text
    assert not hints(Clues(NOW, endpoints=(EndpointClues("e", client_errors=4),)))


def test_a_model_that_does_not_load_says_so_in_its_log() -> None:
    line = "(EngineCore pid=1) ERROR 11-21 18:30:34 [core.py:1] EngineCore failed to start."
    found = hints(Clues(NOW, log_lines=("fine", line)))
    assert found[0].cause is Cause.LOAD_FAILURE
    assert found[0].evidence == (line,)
    assert Cause.LOAD_FAILURE in named(Clues(NOW, events=("CrashLoopBackOff vllm-0",)))


def test_a_node_is_lost_when_everything_on_it_is_down() -> None:
    down = (EndpointClues("e1", "node-a", down=True), EndpointClues("e2", "node-a", down=True))
    other = EndpointClues("e3", "node-b", health_ok=True)
    found = named(Clues(NOW, endpoints=(*down, other)))
    assert found[Cause.NODE_LOSS].evidence == ("all 2 endpoints of node-a are down",)
    assert Cause.NODE_LOSS not in named(Clues(NOW, endpoints=(down[0], EndpointClues("e2", "node-a"))))
    assert named(Clues(NOW, events=("NodeNotReady node-a",)))[Cause.NODE_LOSS].weight > 0.9


def test_a_stalled_engine_answers_its_health_check_and_completes_nothing() -> None:
    stuck = EndpointClues("e", health_ok=True, completions_lost=2)
    assert "completes nothing" in named(Clues(NOW, endpoints=(stuck,)))[Cause.STALLED].text
    assert Cause.STALLED in named(Clues(NOW, {"token_progress": steps(1.0, 0.5)}))


@pytest.mark.parametrize("signal", ["gpus_missing", "gpu_xid", "gpu_ecc_errors"])
def test_a_faulty_gpu_is_named(signal: str) -> None:
    assert Cause.GPU_LOST in named(Clues(NOW, {signal: steps(0, 1)}))
    assert not hints(Clues(NOW, {signal: steps(0, 0)}))


def test_the_most_telling_hint_stands_first() -> None:
    clues = Clues(
        NOW,
        {"queue_depth": steps(0, 40), "request_rate": steps(20, 60), "gpu_xid": steps(0, 1)},
        (EndpointClues("e", health_ok=True, completions_lost=3),),
    )
    weights = [hint.weight for hint in hints(clues)]
    assert len(weights) == 3
    assert weights == sorted(weights, reverse=True)


def test_too_little_is_not_compared() -> None:
    assert rose(((NOW, 1.0),), NOW, 60) is None
    assert slope_per_s(tuple((NOW, 1.0) for _ in range(20))) is None
    assert spread_s(((NOW, 1.0),)) is None


ENDPOINT = Endpoint("p-1", "primary", "http://127.0.0.1:1", "node-a")


def look(probe: str, at: float, failure: Failure | None = None, detail: str = "", took_s: float = 0.001) -> Look:
    return Look(ENDPOINT, probe, at, took_s, failure, detail)


def test_the_book_finds_a_hang_behind_a_live_health_check() -> None:
    book = ClueBook()
    for i in range(3):
        book.take(look("http", NOW + i))
        book.take(look("inference", NOW + i, Failure.TIMEOUT))
    assert named(book.clues("primary", NOW + 3))[Cause.STALLED].weight == 0.9
    book.take(look("inference", NOW + 4))
    assert not hints(book.clues("primary", NOW + 4))


def test_the_book_finds_a_lost_node_from_refused_connections() -> None:
    book = ClueBook()
    book.take(look("held", NOW, Failure.REFUSED))
    assert Cause.NODE_LOSS in named(book.clues("primary", NOW))
    assert not hints(book.clues("standby", NOW))


def test_the_book_counts_wrong_answers_from_the_version_change_on() -> None:
    book = ClueBook()
    book.take(look("http", NOW))
    book.version("p-1", "0.31", NOW)
    for i in range(3):
        book.take(look("inference", NOW + i, Failure.STATUS, "HTTP 400: no such field"))
    assert not hints(book.clues("primary", NOW + 3))
    book.version("p-1", "0.32", NOW + 4)
    for i in range(3):
        book.take(look("inference", NOW + 5 + i, Failure.STATUS, "HTTP 400: no such field"))
    assert Cause.VERSION in named(book.clues("primary", NOW + 9))


def test_the_book_keeps_trails_short_and_memory_for_hours() -> None:
    book = ClueBook()
    for i in range(0, 7200, 5):
        seen = (Evidence("queue_depth", 1.0, Band.OK), Evidence("memory_utilization", 0.3 + i / 36_000, Band.OK))
        book.judged([Verdict("primary", Band.OK, seen)], NOW + i)
    clues = book.clues("primary", NOW + 7200)
    assert len(clues.signals["queue_depth"]) <= 121
    assert len(clues.signals["memory_utilization"]) == 120
    assert Cause.MEMORY_LEAK in named(clues)


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ("GPUsMissing node-a: 7 of 8 can be given to pods", Cause.GPU_LOST),
        (
            "UnexpectedAdmissionError vllm-0: Allocate failed due to no healthy devices of nvidia.com/gpu",
            Cause.GPU_LOST,
        ),
        ("NodeCondition node-a: GpuXidError (79)", Cause.GPU_LOST),
        ("FailedScheduling vllm-0: 0/5 nodes are available: 3 Insufficient nvidia.com/gpu", Cause.NO_ROOM),
        ("DisruptionTarget vllm-0: EvictionByEvictionAPI", Cause.DISRUPTION),
        ("NodeShutdown vllm-0: ", Cause.NODE_LOSS),
        ("OOMKilled vllm-0", Cause.LOAD_FAILURE),
    ],
)
def test_what_kubernetes_says_points_to_its_cause(event: str, cause: Cause) -> None:
    found = named(Clues(NOW, events=(event,)))
    assert list(found) == [cause]
    assert event in found[cause].text


def test_a_condition_of_a_node_that_is_not_about_gpus_is_no_lost_gpu() -> None:
    assert named(Clues(NOW, events=("NodeCondition node-a: DiskPressure (disk)",))) == {}


def test_a_lack_of_gpus_tells_more_than_another_lack_of_room() -> None:
    gpu = named(Clues(NOW, events=("FailedScheduling a: 3 Insufficient nvidia.com/gpu",)))[Cause.NO_ROOM]
    cpu = named(Clues(NOW, events=("FailedScheduling a: 3 Insufficient cpu",)))[Cause.NO_ROOM]
    assert gpu.weight > cpu.weight
