"""What a Prometheus's answers mean for a query, on a small one in memory."""

import re
from collections.abc import Mapping

import pytest

from controlplane.lint.artefact import Artefact, Kind, Query, Variable, read
from controlplane.lint.finding import Finding
from controlplane.lint.known import Known
from controlplane.lint.live import Live, Reply
from controlplane.lint.promql import Call, Literal, Moved, Node, NotPromqlError, Selector, parse

SERIES: list[dict[str, str]] = [
    {"__name__": "running", "pool": "primary", "endpoint": "a"},
    {"__name__": "running", "pool": "standby", "endpoint": "b"},
    {"__name__": "controlplane_signal_value", "service": "chat", "signal": "availability"},
    {"__name__": "gauge", "job": "x"},
]
KNOWN = Known(
    own={
        "controlplane_signal_value": frozenset(("service", "signal")),
        "controlplane_drills_total": frozenset(("outcome",)),
    },
    values={"signal": frozenset(("availability", "gpu_utilization")), "service": frozenset(("chat",))},
    records={"job:rate": "sum(running)", "job:gpus": "count(DCGM_FI_DEV_GPU_UTIL)", "job:self": "job:self"},
)


class Small:
    """Answers `count`, `group by` and bare selectors over `SERIES`; joins and everything else by a table."""

    def __init__(self, answers: Mapping[str, Reply] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []

    def ask(self, query: str) -> Reply:
        self.asked.append(query)
        for part, answer in self.answers.items():
            if part in query:
                return answer
        try:
            return Reply(tuple(self._series(parse(query))))
        except NotPromqlError as error:
            return Reply(refused=f"parse error: {error}")

    def _series(self, node: Node) -> list[Mapping[str, str]]:
        if isinstance(node, Selector):
            return [s for s in SERIES if self._fits(node, s)]
        if isinstance(node, Moved):
            return self._series(node.of)
        if isinstance(node, Literal):
            return []
        if isinstance(node, Call):
            inner = [series for argument in node.arguments for series in self._series(argument)]
            if node.name == "vector":
                return [{}]
            if node.name in ("count", "group", "sum"):
                by = re.findall(r"\w+", node.grouping)[1:]
                keys = {tuple((label, s[label]) for label in by if label in s) for s in inner}
                return [dict(key) for key in sorted(keys)]
            return inner
        sides = [self._series(part) for part in (getattr(node, "left", None), getattr(node, "right", None)) if part]
        return sides[0] if node and all(sides) else []

    def _fits(self, selector: Selector, series: Mapping[str, str]) -> bool:
        if selector.name not in ("", series["__name__"]):
            return False
        for m in selector.matchers:
            have = series.get(m.label, "")
            hit = bool(re.fullmatch(m.value, have)) if "~" in m.operator else have == m.value
            if hit is m.operator.startswith("!"):
                return False
        return True

    def names(self) -> frozenset[str]:
        return frozenset(s["__name__"] for s in SERIES)

    def declared(self) -> frozenset[str]:
        return frozenset(("controlplane_drills", "declared_only"))


def check(text: str, page: Artefact | None = None, answers: Mapping[str, Reply] | None = None) -> list[Finding]:
    live = Live(Small(answers), KNOWN)
    live.begin()
    return list(live.check(Query("f", "w", text, "alert"), page or read("f.md", "")))


@pytest.mark.parametrize(
    "text",
    ["running > 5", "sum(running) > 5", "rate(running{pool='primary'}[5m]) > 0.5", "running unless gauge",
     "absent(running)",
     "vector(1)", "controlplane_signal_value{signal='availability'} <= 0.9", "running{pool=~'primary|nowhere'}"],
)  # fmt: skip
def test_an_alert_that_is_quiet_over_series_that_are_there_is_fine(text: str) -> None:
    assert check(text) == []


@pytest.mark.parametrize(
    ("text", "rule", "severity", "says"),
    [
        ("runing > 5", "unknown-series", "error", "did it mean running"),
        ("absent(runing)", "unknown-series", "error", "never been seen"),
        ("job:rate > 5", "unknown-series", "error", "loaded as `rule_files`"),
        ("job:gpus == 0", "by-design", "note", "dcgm-exporter"),
        ("job:self > 0", "unknown-series", "error", "never been seen"),
        ("declared_only > 0", "quiet-series", "note", "declares it"),
        ("controlplane_drills_total > 0", "quiet-series", "note", "declares it"),
        ("DCGM_FI_DEV_GPU_UTIL > 90", "by-design", "note", "dcgm-exporter"),
        ("vllm:num_requests_running > 5", "engine-series", "warn", "none that is scraped here"),
        ("running{pool='primry'}", "no-such-value", "error", "did it mean primary"),
        ("running{region='eu'}", "no-such-value", "error", "has the label `region`"),
        (
            "running{pool='primary', endpoint='b'}",
            "no-such-combination",
            "error",
            "`pool='primary'` and `endpoint='b'`",
        ),
        ("controlplane_signal_value{signal='gpu_utilization'}", "quiet-value", "note", "not happened yet"),
        ("controlplane_signal_value{signal='gpu_utilisation'}", "no-such-value", "error", "there are availability"),
        ("controlplane_signal_value{service='chat2'}", "no-such-value", "error", "there are chat"),
        ("running or vllm:num_requests_running", "engine-series", "note", "the other side of `or` answers"),
        ("running or runing", "unknown-series", "error", "did it mean running"),
    ],
)
def test_a_selector_that_finds_nothing_says_why(text: str, rule: str, severity: str, says: str) -> None:
    (finding,) = check(text)
    assert (finding.rule, finding.severity) == (rule, severity)
    assert says in f"{finding.what} {finding.fix}"


def test_what_prometheus_refuses_is_told_in_its_words() -> None:
    (finding,) = check("running > 5", answers={"running > 5": Reply(refused="many-to-many matching not allowed")})
    assert finding.rule == "refused"
    assert "many-to-many" in finding.what


def test_a_join_without_partners_says_which_labels_differ() -> None:
    (finding,) = check(
        "running / on (endpoint) gauge > 5", answers={"count((running) / on (endpoint) (gauge))": Reply()}
    )
    assert finding.rule == "join-mismatch"
    assert "endpoint (a/b against absent)" in finding.what


def test_a_join_on_all_labels_is_told_to_name_them() -> None:
    (finding,) = check("running / gauge", answers={"count((running) /  (gauge))": Reply()})
    assert finding.rule == "join-mismatch"
    assert "on (...)" in finding.fix


def test_series_that_are_there_and_give_nothing_are_a_warning() -> None:
    (finding,) = check("rate(running[1s])", answers={"count(rate (running[1s]))": Reply()})
    assert (finding.rule, finding.severity) == ("empty", "warn")


def test_what_cannot_be_taken_apart_and_is_accepted_is_only_noted() -> None:
    (finding,) = check("$$", answers={"$$": Reply()})
    assert (finding.rule, finding.severity) == ("not-taken-apart", "note")


def test_a_question_is_asked_once() -> None:
    prometheus = Small()
    live = Live(prometheus, KNOWN)
    live.begin()
    for _ in range(3):
        live.check(Query("f", "w", "runing{a='b'} + running", "alert"), read("f.md", ""))
    assert len(prometheus.asked) == len(set(prometheus.asked))


def board(*variables: tuple[str, str, str, tuple[str, ...]]) -> Artefact:
    return Artefact("d.json", Kind.DASHBOARD, "", variables={name: Variable(name, kind, query, values)
                                                             for name, kind, query, values in variables})  # fmt: skip


@pytest.mark.parametrize("use", ["{pool='$pool'}", '{pool=~"${pool:regex}"}', "{pool=~'[[pool]]'}", "{pool!~'$pool'}"])
def test_a_variable_stands_for_what_its_labels_are_now(use: str) -> None:
    page = board(("pool", "query", "label_values(running, pool)", ()))
    assert check(f"sum(rate(running{use}[$__rate_interval]))", page) == []


def test_a_variable_of_a_variable_is_resolved_after_it() -> None:
    chained = "label_values(running{pool=~'$pool'}, endpoint)"
    page = board(("pool", "custom", "standby", ("standby",)), ("endpoint", "query", chained, ()))
    live = Live(Small(), KNOWN)
    assert live.values(page)["endpoint"] == ("b",)


def test_findings_name_the_place() -> None:
    (finding,) = check("runing")
    assert (finding.path, finding.where) == ("f", "w")
