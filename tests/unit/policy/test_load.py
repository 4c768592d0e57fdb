"""A policy page becomes a policy, or every thing that is wrong with it at once, each with its line and the way out."""

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from controlplane.degradation.action import (
    Cordon,
    Notify,
    Prewarm,
    Run,
    Scale,
    ServeFromCache,
    Shed,
    SwitchPool,
    UsePool,
)
from controlplane.degradation.matrix import AlertFires, AllOf, AnyOf, Condition, Level, Mode
from controlplane.errors import PolicyError, Problem, UsageError
from controlplane.policy.load import Loaded, load, loads
from controlplane.signals.sample import CATALOGUE
from controlplane.slo.threshold import Band

PAGE = Path("controlplane.yaml")

MINIMAL = """\
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.1.1:8000"] } }
"""

WHOLE = """\
service: chat
fleet:
  pools:
    primary: { endpoints: { static: ["http://10.0.1.1:8000"] } }
    standby: { endpoints: { file: sd/standby.json } }
    base: { model: small, endpoints: { file: sd/base.json } }
"""


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(PolicyError) as refused:
        loads(text, PAGE)
    for problem in refused.value.problems:
        file, _, line = problem.where.rpartition(":")
        assert file == "controlplane.yaml"
        assert 1 <= int(line) <= max(1, text.count("\n") + 1), problem
        assert problem.what
        assert problem.why
        assert problem.fix
    return refused.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def again(loaded: Loaded) -> Loaded:
    return loads(yaml.safe_dump(dict(loaded.resolved), sort_keys=False), PAGE)


def test_a_page_with_only_service_and_fleet_is_a_policy() -> None:
    policy = loads(MINIMAL, PAGE).policy
    assert policy.service == "chat"
    assert policy.fleet.pools["primary"].endpoints.static == ("http://10.0.1.1:8000",)


def test_a_minimal_page_gets_every_default_that_the_design_promises() -> None:
    policy = loads(WHOLE, PAGE).policy
    assert policy.fleet.engine == "auto"
    kinds = [next(s for s in (p.http, p.inference, p.metrics, p.host, p.gpu) if s) for p in policy.probes]
    assert [type(kind).__name__ for kind in kinds] == [
        "HttpSpec", "InferenceSpec", "MetricsSpec", "HostSpec", "GpuSpec",
    ]  # fmt: skip
    latency = policy.thresholds["latency_p99"]
    assert (latency.healthy, latency.warn, latency.breach) == (0.5, 1.0, 2.0)
    assert (latency.window, latency.dwell, latency.min_samples) == (timedelta(seconds=30), timedelta(seconds=5), 50)
    errors = policy.thresholds["error_rate"]
    assert (errors.healthy, errors.warn, errors.breach) == pytest.approx((0.001, 0.005, 0.01))
    assert {n: policy.thresholds[n].breach for n in ("cpu_utilization", "memory_utilization", "gpu_utilization")} == {
        "cpu_utilization": 0.75, "memory_utilization": 0.85, "gpu_utilization": 0.97,
    }  # fmt: skip
    assert policy.objectives[0].target == pytest.approx(0.9995)
    assert policy.objectives[0].window == timedelta(days=30)
    matrix = policy.degradation
    assert matrix.mode is Mode.AUTO
    assert {level: row.within for level, row in matrix.rows.items()} == {
        Level.P0: timedelta(minutes=5), Level.P2: timedelta(hours=1),
    }  # fmt: skip
    assert matrix.rows[Level.P0].do == (SwitchPool("standby"),)
    assert matrix.rows[Level.P2].do == (UsePool("base", 0.5),)
    assert matrix.rows[Level.P0].release.steps == (0.1, 0.5, 1.0)
    assert policy.drills["monthly"].experiments == ("node-kill", "network-partition")
    assert policy.drills["monthly"].gates.standby_ready is True
    assert policy.publish.dir == "."


def test_the_default_trigger_of_p0_acts_on_hard_evidence_without_a_dwell() -> None:
    when = loads(WHOLE, PAGE).policy.degradation.rows[Level.P0].when
    assert when == AnyOf(
        (
            Condition("endpoints_down", above=1.0),
            Condition("availability", below=0.5, dwell=timedelta(seconds=2)),
            Condition("error_rate", above=0.05, dwell=timedelta(seconds=3)),
        )
    )


def test_a_default_row_whose_pool_the_fleet_lacks_is_not_armed_and_says_why() -> None:
    matrix = loads(MINIMAL, PAGE).policy.degradation
    assert matrix.rows == {}
    assert matrix.not_armed == {
        "P0": "the fleet has no pool `standby`", "P1": "the fleet has no pool `cache`",
        "P2": "the fleet has no pool `base`",
    }  # fmt: skip


def test_a_row_on_the_page_that_needs_an_absent_pool_is_refused_at_its_line() -> None:
    problem = only(MINIMAL + "degradation:\n  P0: { within: 3m }\n")
    assert problem.where == "controlplane.yaml:6"
    assert "row P0 needs pool `standby`" in problem.what
    assert "leave P0 out" in problem.fix


@pytest.mark.parametrize(
    ("text", "line", "what", "fix"),
    [
        ("servce: x\n", 5, "unknown key `servce`", "did you mean `service`?"),
        ("thresholds:\n  latency_p9: { warn: 1s }\n", 6, "unknown key `thresholds.latency_p9`", "`latency_p99`"),
        ("thresholds:\n  latency_p99:\n    warm: 1s\n", 7, "`thresholds.latency_p99.warm`", "did you mean `warn`?"),
        ("thresholds:\n  latency_p99:\n    warn: 70%\n", 7, "warn: 70%` has the wrong unit", "a duration such as"),
        ("thresholds:\n  latency_p99:\n    warn: 1\n", 7, "warn: 1` has the wrong unit", "a duration such as"),
        ("thresholds:\n  error_rate:\n    warn: 5s\n", 7, "warn: 5s` has the wrong unit", "a ratio from 0% to 100%"),
        ("thresholds:\n  error_rate:\n    warn: 101%\n", 7, "warn: 101%` has the wrong unit", "0% to 100%"),
        ("thresholds:\n  latency_p99: { for: soon }\n", 6, "for: soon` is not usable", "a duration such as"),
        ("thresholds:\n  latency_p99: { min_samples: 2.5 }\n", 6, "min_samples` is `2.5`", "a whole number"),
        ("thresholds:\n  latency_p99: { min_samples: true }\n", 6, "min_samples` is `True`", "a whole number"),
        ("thresholds:\n  latency_p99: { warn: 3s }\n", 6, "levels of `latency_p99` are out of order", "in order"),
        ("thresholds:\n  availability: { warn: 80% }\n", 6, "levels of `availability` are out of order", "in order"),
        ("thresholds:\n  queue_depth: { warn: 1 }\n", 6, "`thresholds.queue_depth.healthy` is missing", "`healthy:`"),
        ("thresholds: [ latency_p99 ]\n", 5, "`thresholds` is", "with keys under it"),
        ("thresholds:\n", 5, "`thresholds` is `None`", "with keys under it"),
        ("probes: { http: {} }\n", 5, "`probes` is", "write `[ ... ]`"),
        ("probes:\n  - { http: {}, host: {} }\n", 6, "`probes[0]` needs exactly one kind", "its own dash"),
        ("probes:\n  - grpc: {}\n", 6, "unknown key `probes[0].grpc`",
         "known keys here: events, gpu, host, http, inference, logs, metrics, promql"),
        ("probes:\n  - http: { every: often }\n", 6, "every: often` is not usable", "a duration such as"),
        ("objectives:\n  - { name: availability }\n", 6, "`objectives[0].target` is missing", "add `target:`"),
        ("degradation: { mode: automatic }\n", 5, "mode: automatic` is not usable", "one of: auto, approve, observe"),
        ("degradation: { P7: {} }\n", 5, "unknown key `degradation.P7`", "known keys here: P0, P1, P2, commands"),
        ("degradation: { max_switches_per_hour: 0 }\n", 5, "max_switches_per_hour: 0` lets nothing happen", "say 6"),
        ("degradation: { max_switches_per_hour: 1.5 }\n", 5, "max_switches_per_hour` is `1.5`", "a whole number"),
        ("publish: { dir: 7 }\n", 5, "`publish.dir` is `7`", "write text"),
        ("drills:\n  monthly: { at: { hour: 24 } }\n", 6, "24:00 is no time of day", "mend the hour"),
        ("drills:\n  monthly:\n    at: { timezone: Asia/Shanghia }\n", 7, "unknown time zone `Asia/Shanghia`", "`UTC`"),
        ("drills:\n  monthly: { gates: { no_open_incident: 1 } }\n", 6, "no_open_incident` is `1`", "true or false"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_at_its_line_with_the_way_out(text: str, line: int, what: str, fix: str) -> None:
    found = [p for p in problems(MINIMAL + text) if what in p.what]
    assert len(found) == 1
    assert found[0].where == f"controlplane.yaml:{line}"
    assert fix in found[0].fix


ROW = "degradation:\n  P1:\n    when: {when}\n    do: {do}\n    within: {within}\n    release: {release}\n"
GOOD = {
    "when": "{ queue_depth: { above: 100, for: 5s } }",
    "do": "[ { use_pool: { pool: base, share: 50% } } ]",
    "within": "15m",
    "release": "{ steps: [50%, 100%], hold: 1m }",
}


def row_page(**changes: str) -> str:
    parts = GOOD | changes
    text = ROW
    for key, value in parts.items():
        text = text.replace("{" + key + "}", value)
    return WHOLE + text


def test_a_row_of_ones_own_is_read_as_it_is_written() -> None:
    row = loads(row_page(), PAGE).policy.degradation.rows[Level.P1]
    assert row.when == Condition("queue_depth", above=100.0, dwell=timedelta(seconds=5))
    assert row.do == (UsePool("base", 0.5),)
    assert row.within == timedelta(minutes=15)
    assert row.release.steps == (0.5, 1.0)
    assert row.target == "base"


def test_conditions_nest_and_a_bare_level_compares_in_the_direction_that_is_worse() -> None:
    when = "{ all: [ { latency_p99: warn }, { any: [ { gpu_utilization: breach }, { availability: 95% } ] } ] }"
    row = loads(row_page(when=when), PAGE).policy.degradation.rows[Level.P1]
    assert row.when == AllOf(
        (
            Condition("latency_p99", band=Band.WARN),
            AnyOf((Condition("gpu_utilization", band=Band.BREACH), Condition("availability", below=0.95))),
        )
    )


@pytest.mark.parametrize(
    ("key", "value", "line", "what"),
    [
        ("when", "{ queue_dept: 5 }", 9, "unknown key `degradation.P1.when.queue_dept`"),
        ("when", "{ queue_depth: { above: 5, below: 2 } }", 9, "needs one of `above` and `below`"),
        ("when", "{ queue_depth: {} }", 9, "needs one of `above` and `below`"),
        ("when", "{ queue_depth: 5s }", 9, "queue_depth: 5s` has the wrong unit"),
        ("when", "{ any: [] }", 9, "is not a list"),
        ("when", "{ any: 5 }", 9, "is not a list"),
        ("when", "{}", 9, "needs one key"),
        ("when", "{ queue_depth: 1, error_rate: 1% }", 9, "needs one key"),
        ("when", "breach", 9, "is `breach`"),
        ("do", "[]", 10, "is not a list of actions"),
        ("do", "{ use_pool: { pool: base } }", 10, "is not a list of actions"),
        ("do", "[ { use_pool: { pool: base }, switch_pool: {} } ]", 10, "is not one action"),
        ("do", "[ { use_pool: { pool: base } }, { switch_pool: {} } ]", 10, "moves the primary's traffic twice"),
        ("do", "[ { use_pool: { pool: base, share: 0% } } ]", 10, "share` is 0%"),
        ("do", "[ { use_pool: { pool: primary } } ]", 10, "leads back to `primary`"),
        ("do", "[ { shed: {} } ]", 10, "shed.rate: None` is not usable"),
        ("do", "[ { shed: { rate: 50 } } ]", 10, "shed.rate: 50` is not usable"),
        ("do", "[ { shed: { rate: 0/s } } ]", 10, "shed.rate: 0/s` is not usable"),
        ("do", "[ { shed: { rate: 5/s, floor: low } } ]", 10, "shed.floor` is `low`"),
        ("do", "[ { scale: { replicas: 4 } } ]", 10, "needs one of `deployment`, `statefulset` and `hpa`"),
        (
            "do",
            "[ { scale: { deployment: a, hpa: a, replicas: 4 } } ]",
            10,
            "needs one of `deployment`, `statefulset` and `hpa`",
        ),
        ("do", "[ { scale: { deployment: a, max: 4 } } ]", 10, "does not say what a deployment is to have"),
        ("do", "[ { scale: { hpa: a } } ]", 10, "does not say what a hpa is to have"),
        ("do", "[ { scale: { hpa: a, min: 5, max: 4 } } ]", 10, "are out of order"),
        ("do", "[ { prewarm: { pool: base, completions: 0 } } ]", 10, "sends nothing"),
        ("do", "[ { prewarm: { pool: spare } } ]", 10, "row P1 needs pool `spare`"),
        ("do", "[ { cordon: {} } ]", 10, "cordon.endpoint` is missing"),
        ("do", "[ { notify: { receiver: oncall } } ]", 10, "unknown receiver `oncall`"),
        ("do", "[ { run: { command: drain } } ]", 10, "unknown command `drain`"),
        ("when", "{ alert: 5 }", 9, "alert` is `5`"),
        ("do", "[ { drop_traffic: {} } ]", 10, "unknown key `degradation.P1.do[0].drop_traffic`"),
        ("do", "[ { use_pool: {} } ]", 10, "do[0].use_pool.pool` is nothing"),
        ("do", "[ { use_pool: { pool: base, share: 150% } } ]", 10, "share: 150%` is not usable"),
        ("do", "[ { use_pool: { pool: cache } } ]", 10, "row P1 needs pool `cache`"),
        ("within", "15", 11, "within: 15` is not usable"),
        ("release", "{ steps: [50%, 10%, 100%] }", 12, "do not lead back to the primary"),
        ("release", "{ steps: [50%, 50%, 100%] }", 12, "do not lead back to the primary"),
        ("release", "{ steps: [10%, 50%] }", 12, "do not lead back to the primary"),
        ("release", "{ steps: [] }", 12, "do not lead back to the primary"),
        ("release", "{ hold: never }", 12, "hold: never` is not usable"),
    ],
)
def test_a_wrong_row_is_refused_at_its_line(key: str, value: str, line: int, what: str) -> None:
    found = [p for p in problems(row_page(**{key: value})) if what in p.what]
    assert [p.where for p in found] == [f"controlplane.yaml:{line}"]


@pytest.mark.parametrize(
    ("fleet", "what"),
    [
        ("{}", "`fleet.pools` is missing"),
        ("5", "`fleet` is `5`"),
        ("{ pools: {} }", "missing pool `primary`"),
        ("{ pools: { standby: { endpoints: { file: a.json } } } }", "missing pool `primary`"),
        ("{ pools: { primary: {} } }", "`fleet.pools.primary.endpoints` is missing"),
        (
            "{ pools: { primary: { endpoints: {} } } }",
            "needs exactly one of `static`, `file`, `kubernetes` and `prometheus`",
        ),
        ("{ pools: { primary: { endpoints: { file: a, static: ['http://b'] } } } }", "exactly one of"),
        ("{ pools: { primary: { endpoints: { static: ['10.0.0.1:80'] } } } }", "`10.0.0.1:80` is not an endpoint"),
        ("{ pools: { primary: { endpoints: { file: a } } }, engine: vlm }", "unknown engine `vlm`"),
        (
            "{ pools: { primary: { endpoints: { file: a } } }, gateway: {} }",
            "`fleet.gateway` needs exactly one of `envoy`",
        ),
        ("{ pools: [ primary ] }", "`fleet.pools` is `['primary']`"),
    ],
)
def test_a_wrong_fleet_is_refused(fleet: str, what: str) -> None:
    found = problems(f"service: chat\nfleet: {fleet}\n")
    assert [p for p in found if what in p.what and p.where == "controlplane.yaml:2"], found


GATEWAY = "service: chat\nfleet:\n  pools: {{ primary: {{ endpoints: {{ file: a }} }} }}\n  gateway: {gateway}\n"
KUBERNETES = "{ kubernetes: { kind: httproute, name: chat, listener: 'http://a', backends: { primary: chat-1 } } }"
LITELLM = "{ litellm: { url: 'http://a', key: 'env:KEY', deployments: { primary: [id-1, id-2] } } }"


@pytest.mark.parametrize(
    ("gateway", "listener"),
    [
        (KUBERNETES, "http://a"),
        ("{ webhook: { url: 'http://b', listener: 'http://a', secret: 'file:key' } }", "http://a"),
        (LITELLM, "http://a"),
        ("{ dry_run: {} }", ""),
        ("{ dry_run: { listener: 'http://a' } }", "http://a"),
    ],
)
def test_a_gateway_may_be_any_of_those_that_have_a_lever(gateway: str, listener: str) -> None:
    found = loads(GATEWAY.format(gateway=gateway), Path("controlplane.yaml")).policy.fleet.gateway
    assert found is not None
    assert found.listener == listener


def test_a_pool_of_a_gateway_keeps_the_names_it_has_there() -> None:
    found = loads(GATEWAY.format(gateway=LITELLM), Path("controlplane.yaml")).policy.fleet.gateway
    assert found is not None
    assert found.litellm is not None
    assert found.litellm.deployments == {"primary": ("id-1", "id-2")}


@pytest.mark.parametrize(
    ("gateway", "what"),
    [
        (
            "{ dry_run: {}, webhook: { url: 'http://b', listener: 'http://a', secret: 'file:k' } }",
            "needs exactly one of",
        ),
        (KUBERNETES.replace("httproute", "ingress"), "unknown route `ingress`"),
        (KUBERNETES.replace("primary:", "primry:"), "no pool `primry` in the fleet"),
        (LITELLM.replace("primary:", "primry:"), "no pool `primry` in the fleet"),
        (LITELLM.replace("env:KEY", "sk-1234"), "is not the place of a secret"),
        ("{ webhook: { url: 'http://b', listener: 'http://a', secret: hunter2 } }", "is not the place of a secret"),
    ],
)
def test_a_gateway_that_cannot_be_pulled_is_refused_on_its_line(gateway: str, what: str) -> None:
    (problem,) = problems(GATEWAY.format(gateway=gateway))
    assert what in problem.what
    assert problem.where == "controlplane.yaml:4"


def test_a_repeated_key_is_refused_with_both_lines() -> None:
    problem = only(MINIMAL + "service: other\n")
    assert problem.where == "controlplane.yaml:5"
    assert "`service` stands twice" in problem.what
    assert "controlplane.yaml:1" in problem.why


def test_a_page_that_is_not_yaml_is_refused_at_the_line_where_it_breaks() -> None:
    problem = only(MINIMAL + "probes: [\n  }\n")
    assert problem.what == "not valid YAML"
    assert problem.where == "controlplane.yaml:6"


@pytest.mark.parametrize("text", ["- service\n- fleet\n", "just words\n", "42\n", "null\n"])
def test_a_page_that_is_not_a_mapping_is_refused(text: str) -> None:
    assert only(text).what == "the page is not a mapping"


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n"])
def test_an_empty_page_says_that_both_needed_keys_are_missing(text: str) -> None:
    assert [p.what for p in problems(text)] == ["`service` is missing", "`fleet` is missing"]


def test_everything_wrong_is_told_at_once_in_the_order_of_the_page() -> None:
    found = problems(
        "servce: chat\n"
        "fleet: { pools: { standby: { endpoints: { file: a } } }, engine: vlm }\n"
        "thresholds:\n"
        "  latency_p99: { warn: 70% }\n"
        "  error_rate: { breach: 0.2% }\n"
        "drills:\n"
        "  monthly: { at: { timezone: Mars/Olympus } }\n"
    )
    lines = [int(p.where.rpartition(":")[2]) for p in found]
    assert lines == sorted(lines)
    told = " | ".join(p.what for p in found)
    for what in ("`servce`", "`service` is missing", "missing pool `primary`", "unknown engine `vlm`", "warn: 70%",
                 "`error_rate` are out of order", "Mars/Olympus"):  # fmt: skip
        assert what in told


def test_a_missing_file_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no policy page at .*absent\.yaml") as refused:
        load(tmp_path / "absent.yaml")
    assert refused.value.fix
    assert refused.value.exit_code == 2


def test_a_binary_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "page.yaml"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(UsageError, match="cannot read") as refused:
        load(path)
    assert "UTF-8" in refused.value.fix


def test_a_directory_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path)


def test_control_characters_in_the_text_are_a_problem_with_a_line() -> None:
    assert problems("service: chat\nfleet: \x00\n")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{a: " * 5_000 + "1" + "}" * 5_000],
    ids=["unclosed", "closed"],
)  # fmt: skip
def test_absurd_nesting_is_a_problem_and_not_a_crash(text: str) -> None:
    assert problems(text)


def test_a_page_that_contains_itself_is_a_problem_and_not_a_crash() -> None:
    assert problems("service: &me [ *me ]\nfleet: 5\n")


@pytest.mark.parametrize(
    "value", ["!!python/object:os.system x", "2026-13-45", "!!int word", "!!binary '*'", "!unknown {}"]
)
def test_a_value_yaml_cannot_build_is_a_problem_at_its_line(value: str) -> None:
    found = problems(f"service: chat\nfleet: 5\npublish: {{ dir: {value} }}\n")
    assert any(p.where == "controlplane.yaml:3" for p in found)


@pytest.mark.parametrize(
    "text",
    [
        "thresholds:\n  latency_p99: { window: 99999999999999d }\n",
        f"thresholds:\n  latency_p99: {{ window: {'9' * 400}s }}\n",
        f"thresholds:\n  error_rate: {{ warn: 1{'0' * 400} }}\n",
        "thresholds:\n  queue_depth: { healthy: 1, warn: 2, breach: .inf, window: 1s, for: 0s }\n",
    ],
    ids=["days", "seconds", "ratio", "infinity"],
)
def test_a_number_too_large_to_hold_is_a_problem_and_not_a_crash(text: str) -> None:
    assert problems(MINIMAL + text)[0].where == "controlplane.yaml:6"


def test_a_time_zone_that_names_a_directory_is_unknown() -> None:
    assert "`America`" in only(MINIMAL + "drills:\n  monthly: { at: { timezone: America } }\n").what


@pytest.mark.parametrize("day", ["15", "1st tue", "last fri"])
def test_the_day_of_a_drill_is_a_number_or_an_ordinal_weekday(day: str) -> None:
    policy = loads(MINIMAL + f"drills:\n  monthly: {{ at: {{ day: {day} }} }}\n", PAGE).policy
    assert policy.drills["monthly"].at.day == day


@pytest.mark.parametrize("day", ["32", "1st blursday", "whenever"])
def test_a_day_that_never_comes_is_refused(day: str) -> None:
    assert "drills.monthly.at" in " ".join(
        p.what for p in problems(MINIMAL + f"drills:\n  monthly: {{ at: {{ day: {day} }} }}\n")
    )


def test_the_trigger_of_a_default_row_can_be_replaced_by_another_kind_of_trigger() -> None:
    page = WHOLE + "degradation:\n  P0:\n    when: { all: [ { endpoints_down: 100% }, { error_rate: 5% } ] }\n"
    when = loads(page, PAGE).policy.degradation.rows[Level.P0].when
    assert when == AllOf((Condition("endpoints_down", above=1.0), Condition("error_rate", above=0.05)))


def test_an_endpoint_whose_port_is_impossible_is_refused() -> None:
    found = problems(MINIMAL.replace("10.0.1.1:8000", "10.0.1.1:80000"))
    assert "http://10.0.1.1:80000" in found[0].what


def test_a_pool_may_not_take_the_name_under_which_the_gateway_is_watched() -> None:
    assert "gateway" in only(MINIMAL + "    gateway: { endpoints: { file: a.json } }\n").what


@pytest.mark.parametrize("page", [MINIMAL, WHOLE, row_page(), WHOLE + "degradation: { mode: observe }\n"])
def test_the_resolved_page_loads_to_the_same_policy(page: str) -> None:
    loaded = loads(page, PAGE)
    reloaded = again(loaded)
    assert reloaded.policy == loaded.policy
    assert again(reloaded).resolved == loaded.resolved


def test_the_resolved_page_shows_the_defaults_and_leaves_out_rows_that_are_not_armed() -> None:
    resolved = loads(MINIMAL, PAGE).resolved
    assert set(resolved["thresholds"]) <= set(CATALOGUE)
    assert resolved["thresholds"]["latency_p99"]["breach"] == "2s"
    assert "P0" not in resolved["degradation"]
    assert list(resolved) == ["service", "fleet", "probes", "thresholds", "objectives", "degradation", "drills",
                              "publish"]  # fmt: skip


def test_the_resolved_page_shows_the_defaults_inside_what_the_page_wrote_itself() -> None:
    resolved = loads(WHOLE + "probes:\n  - http: { every: 3s }\n", PAGE).resolved
    assert resolved["fleet"]["engine"] == "auto"
    assert resolved["probes"][0]["http"] == {
        "path": "/health", "every": "3s", "timeout": "600ms", "status": 0, "failures": 3, "successes": 1,
        "tls_days_left": 14, "jitter": "10%",
    }  # fmt: skip


def test_relative_paths_start_at_the_page() -> None:
    assert loads(MINIMAL, Path("/etc/chat/controlplane.yaml")).base == Path("/etc/chat")


MATRIX = """\
degradation:
  P0: { when: { endpoints_down: 100% }, do: [ { switch_pool: {} } ], within: 5m }
  P1: { when: { alert: Slow }, do: [ { use_pool: { pool: base } } ], within: 15m }
  P2: { when: { latency_p99: warn }, do: [ { shed: { rate: 50/s } } ], within: 1h }
"""


def matrix_page(**escalate: str) -> str:
    text = MATRIX
    for row in ("P0", "P1", "P2"):
        text = text.replace(f"{row}: {{ ", f"{row}: {{ escalate: {escalate.get(row, 'null')}, ")
    return WHOLE + text


def test_the_default_rows_escalate_to_the_next_worse_one_that_is_armed() -> None:
    with_cache = WHOLE + "    cache: { endpoints: { file: sd/cache.json } }\n"
    rows = loads(with_cache, PAGE).policy.degradation.rows
    assert {level: row.escalate for level, row in rows.items()} == {
        Level.P0: None, Level.P1: Level.P0, Level.P2: Level.P1,
    }  # fmt: skip
    assert rows[Level.P1].do == (ServeFromCache("cache"),)
    assert rows[Level.P1].when == AnyOf(
        (
            Condition("latency_p99", band=Band.BREACH),
            Condition("queue_depth", above=100.0, dwell=timedelta(seconds=5)),
            AlertFires("InferenceOverloaded"),
        )
    )
    assert loads(WHOLE, PAGE).policy.degradation.rows[Level.P2].escalate is None


@pytest.mark.parametrize(
    ("escalate", "line", "what"),
    [
        ({"P1": "P1"}, 9, "the escalation goes in a circle: P1 -> P1"),
        ({"P0": "P1", "P1": "P0"}, 9, "the escalation goes in a circle: P1 -> P0 -> P1"),
        ({"P0": "P2", "P1": "P0", "P2": "P1"}, 10, "the escalation goes in a circle: P2 -> P1 -> P0 -> P2"),
        ({"P2": "none"}, 10, "row P2 escalates to none, which is not armed"),
        ({"P2": "P3"}, 10, "escalate: P3` is not usable"),
    ],
)
def test_an_escalation_that_leads_nowhere_is_refused(escalate: dict[str, str], line: int, what: str) -> None:
    problem = only(matrix_page(**escalate))
    assert what in problem.what
    assert problem.where == f"controlplane.yaml:{line}"


def test_an_escalation_to_a_row_that_the_fleet_cannot_carry_out_is_refused() -> None:
    page = "".join(line for line in matrix_page(P1="P0").splitlines(keepends=True) if "P0: {" not in line)
    page = page.replace("standby:", "spare:")
    assert "row P1 escalates to P0, which is not armed" in only(page).what


def test_escalations_may_meet_in_one_row() -> None:
    rows = loads(matrix_page(P1="P0", P2="P0"), PAGE).policy.degradation.rows
    assert [rows[level].escalate for level in (Level.P0, Level.P1, Level.P2)] == [None, Level.P0, Level.P0]


def test_a_row_may_do_several_things_and_each_is_read_as_it_is_written() -> None:
    do = (
        "[ { use_pool: { pool: base, share: 25% } }, { shed: { rate: 3000/m, burst: 20, floor: 2 } }, "
        "{ scale: { deployment: chat, replicas: 4, namespace: prod } }, { scale: { hpa: chat, min: 2, max: 8 } }, "
        "{ prewarm: { pool: base } }, { cordon: { endpoint: primary-1 } } ]"
    )
    assert loads(row_page(do=do), PAGE).policy.degradation.rows[Level.P1].do == (
        UsePool("base", 0.25), Shed(50.0, 20.0, 2), Scale("deployment/chat", "prod", replicas=4),
        Scale("hpa/chat", min=2, max=8), Prewarm("base"), Cordon("primary-1"),
    )  # fmt: skip


def test_the_mode_stands_over_the_whole_matrix_and_a_row_may_have_its_own() -> None:
    text = row_page().replace("  P1:\n", "  mode: approve\n  P1:\n    mode: auto\n")
    matrix = loads(text, PAGE).policy.degradation
    assert matrix.mode_of(matrix.rows[Level.P1]) is Mode.AUTO
    assert matrix.mode_of(matrix.rows[Level.P0]) is Mode.APPROVE
    assert matrix.max_switches_per_hour == 6


CALLS = """\
  receivers:
    oncall: { slack: "env:SLACK_URL" }
  commands:
    drain: { run: [/usr/local/bin/drain, chat], undo: [/usr/local/bin/drain, --back, chat], timeout: 10s }
"""


def calls_page(before: str = "", after: str = "") -> str:
    text = row_page(do="[ { notify: { receiver: oncall } }, { run: { command: drain } } ]") + CALLS
    return text.replace(before, after)


def test_receivers_and_commands_are_called_by_name() -> None:
    matrix = loads(calls_page(), PAGE).policy.degradation
    assert matrix.rows[Level.P1].do == (Notify("oncall"), Run("drain"))
    assert matrix.receivers["oncall"].kind == "slack"
    assert matrix.commands["drain"].undo[1] == "--back"
    assert matrix.commands["drain"].timeout == timedelta(seconds=10)


@pytest.mark.parametrize(
    ("before", "after", "line", "what"),
    [
        ("receiver: oncall", "receiver: onkall", 10, "unknown receiver `onkall`"),
        ("command: drain", "command: rm", 10, "unknown command `rm`"),
        (", undo: [/usr/local/bin/drain, --back, chat]", "", 16, "`degradation.commands.drain.undo` is missing"),
        ("undo: [/usr/local/bin/drain, --back, chat]", "undo: []", 16, "`degradation.commands.drain` is not usable"),
        ("run: [/usr/local/bin/drain, chat]", "run: [drain]", 16, "`degradation.commands.drain` is not usable"),
        ('slack: "env:SLACK_URL"', "slack: https://hooks", 14, "`degradation.receivers.oncall` is not usable"),
        ('slack: "env:SLACK_URL"', "slak: x", 14, "unknown key `degradation.receivers.oncall.slak`"),
    ],
)
def test_a_call_that_leads_nowhere_or_cannot_be_undone_is_refused(
    before: str, after: str, line: int, what: str
) -> None:
    found = [p for p in problems(calls_page(before, after)) if what in p.what]
    assert [p.where for p in found] == [f"controlplane.yaml:{line}"]
