"""Answers of Prometheus-compatible servers."""

from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from hypothesis import given
from hypothesis import strategies as st

from controlplane.fleet.model import Endpoint
from controlplane.probes.probe import Failure, Fetched, Page, PromqlSpec
from controlplane.probes.promql import PromqlProbe, query_url, read_answer
from tests.support.misbehaving import vector

ENDPOINT = Endpoint("p-1", "primary", "http://10.0.0.1:8000")
OTHER = Endpoint("s-1", "standby", "http://10.0.0.2:8000")


class Prometheus:
    """Answers by query."""

    def __init__(self, answers: Mapping[str, bytes | None]) -> None:
        self.answers = answers
        self.asked = 0

    async def __call__(self, url: str, within: timedelta) -> Fetched:
        self.asked += 1
        content = self.answers[parse_qs(urlsplit(url).query)["query"][0]]
        return Fetched(None, Failure.TIMEOUT, "too slow") if content is None else Fetched(content)


def probe(answers: Mapping[str, bytes | None]) -> PromqlProbe:
    queries = {name: name for name in answers}
    return PromqlProbe(PromqlSpec("http://prom:9090", queries, every=timedelta(minutes=1)), Prometheus(answers))


async def page(made: PromqlProbe, endpoint: Endpoint) -> Page:
    look = await made.look(endpoint)
    assert look.ok, look.detail
    assert look.page is not None
    return look.page


async def test_series_are_dealt_out_by_their_labels() -> None:
    made = probe(
        {
            "queue_depth": vector(({"instance": "10.0.0.1:8000"}, 7), ({"endpoint": "s-1"}, 3)),
            "latency_p99": vector(({"pool": "standby"}, 0.4), ({}, 1.5)),
        }
    )
    assert (await page(made, ENDPOINT)).gauges == {"queue_depth": 7, "latency_p99": 1.5}
    assert (await page(made, OTHER)).gauges == {"queue_depth": 3, "latency_p99": 0.4}


async def test_the_server_is_asked_once_for_the_whole_fleet() -> None:
    server = Prometheus({"q": vector()})
    made = PromqlProbe(PromqlSpec("http://prom:9090", {"queue_depth": "q"}, every=timedelta(minutes=1)), server)
    for _ in range(50):
        await made.look(ENDPOINT)
    assert server.asked == 1


async def test_a_partial_answer_is_used_and_flagged() -> None:
    thanos = vector(({"instance": "10.0.0.1:8000"}, 7), warnings=["store gateway down"])
    seen = await page(probe({"queue_depth": thanos}), ENDPOINT)
    assert (seen.gauges, seen.partial) == ({"queue_depth": 7}, "store gateway down")
    victoria = vector(({"instance": "10.0.0.1:8000"}, 7), isPartial=True)
    assert "partial" in (await page(probe({"queue_depth": victoria}), ENDPOINT)).partial


async def test_a_query_that_fails_leaves_the_others() -> None:
    made = probe({"queue_depth": vector(({}, 7)), "latency_p99": None})
    seen = await page(made, ENDPOINT)
    assert seen.gauges == {"queue_depth": 7}
    assert seen.partial == "latency_p99: http://prom:9090: too slow"


async def test_no_answer_at_all_is_a_failed_look() -> None:
    assert (await probe({"queue_depth": None}).look(ENDPOINT)).failure is Failure.TIMEOUT


def test_an_error_is_said_in_the_servers_words() -> None:
    answer = read_answer(b'{"status":"error","errorType":"bad_data","error":"parse error"}')
    assert (answer.failure, answer.detail) == (Failure.ANSWER, "the query failed: parse error")


def test_what_is_not_a_number_is_left_out() -> None:
    assert read_answer(vector(({}, float("nan")), ({"pool": "a"}, 2))).series == (({"pool": "a"}, 2.0),)


def test_of_a_range_the_newest_number_counts() -> None:
    series = b'{"metric":{},"values":[[1,"1"],[2,"5"],[3,"NaN"]]}'
    body = b'{"status":"success","data":{"resultType":"matrix","result":[' + series + b"]}}"
    assert read_answer(body).series == (({}, 5.0),)


def test_a_scalar_is_about_everybody() -> None:
    assert read_answer(b'{"status":"success","data":{"resultType":"scalar","result":[1,"4"]}}').series == (({}, 4.0),)


def test_a_range_is_asked_with_its_ends() -> None:
    spec = PromqlSpec("http://prom:9090/", {}, over=timedelta(minutes=1))
    url = urlsplit(query_url(spec, "up == 0", 1000.0))
    assert (url.path, parse_qs(url.query)) == (
        "/api/v1/query_range",
        {"query": ["up == 0"], "start": ["940.000"], "end": ["1000.000"], "step": ["5.000"]},
    )


@given(st.binary())
def test_no_answer_raises(content: bytes) -> None:
    read_answer(content)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["metric", "value", "values", "a"]), x), max_leaves=8))  # fmt: skip # noqa: E501
def test_no_result_raises(result: object) -> None:
    import json  # noqa: PLC0415

    read_answer(json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode())
