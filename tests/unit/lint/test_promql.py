"""PromQL taken apart and put together again."""

import pytest

from controlplane.lint.artefact import read
from controlplane.lint.promql import NotPromqlError, joins, parse, relaxed, selectors, write
from controlplane.policy.load import load
from controlplane.render.artefacts import render
from tests.golden.cases import DRILLS, HERE, hostile_policy, policy

READ = [
    ("up", "up"),
    ("up > 5", "(up) >  (5)"),
    ("1 + 2 * 3 ^ 2 ^ x", "(1) +  ((2) *  ((3) ^  ((2) ^  (x))))"),
    ("a or b and c unless d", "(a) or  (((b) and  (c)) unless  (d))"),
    ("-a ^ 2", "-((a) ^  (2))"),
    ("a == bool on (x) group_left (y) b", "(a) == bool on (x) group_left (y) (b)"),
    ("a * on (x) group_left b", "(a) * on (x) group_left (b)"),
    ("a / ignoring () b", "(a) / ignoring () (b)"),
    ("sum by (a, b) (rate(x[5m]))", "sum by (a, b) (rate (x[5m]))"),
    ("sum(x) without (a)", "sum without (a) (x)"),
    ("topk(3, x)", "topk (3, x)"),
    ("max_over_time((a > 1)[1h:5m] offset -3m)", "max_over_time (((a) >  (1))[1h:5m] offset -3m)"),
    ("x @ start() offset 1d", "x @ start() offset 1d"),
    ("count_values('v', x)", "count_values ('v', x)"),
    ("{__name__=~'a|b', c!=\"d\"}", "{__name__=~'a|b',c!=\"d\"}"),
    ("a # why\n+ b", "(a) +  (b)"),
    ("inf", "inf"),
    ("job:x:rate5m{le='+Inf',}", "job:x:rate5m{le='+Inf'}"),
    ('label_replace(up, "a", "$1", "b", "(.*)")', 'label_replace (up, "a", "$1", "b", "(.*)")'),
    ("time() - x", "(time ()) -  (x)"),
]


@pytest.mark.parametrize(("text", "written"), READ)
def test_an_expression_is_read_with_its_precedence(text: str, written: str) -> None:
    assert write(parse(text)).replace("  ", " ") == written.replace("  ", " ")
    assert write(parse(write(parse(text)))) == write(parse(text))


@pytest.mark.parametrize(
    "text", ["", "sum by (a (x)", "a b", "x{a}", "x{a=b}", "x[5m", "(x", "x)", "a +", "a on b", "x{a='1'", "$x", "f(,)"]
)
def test_what_is_no_promql_is_refused(text: str) -> None:
    with pytest.raises(NotPromqlError):
        parse(text)


def test_brackets_that_stand_in_one_another_without_end_are_refused() -> None:
    with pytest.raises(NotPromqlError, match="in one another"):
        parse("(" * 500 + "x" + ")" * 500)


def test_selectors_come_without_ranges_and_strings_are_no_selectors() -> None:
    found = [str(s) for s in selectors(parse("rate(a{b='}[x'}[5m]) > on (c) label_replace(d, 'e', 'f', 'g', 'h')"))]
    assert found == ["a{b='}[x'}", "d{}"]


@pytest.mark.parametrize(
    ("written", "value"),
    [('"a\\"b"', 'a"b'), ("'a\\\\b'", "a\\b"), ("`a\\b`", "a\\b"), ('"\\U0000202e"', "\u202e"), ('"\\n"', "\n")],
)
def test_a_matcher_says_its_value_unquoted(written: str, value: str) -> None:
    (selector,) = selectors(parse(f"x{{a={written}}}"))
    assert selector.matchers[0].value == value


@pytest.mark.parametrize(
    ("matcher", "wants"),
    [
        ("a='b'", ("b",)),
        ("a=~'b|c'", ("b", "c")),
        (r"a=~'b\\.c'", ("b.c",)),
        ("a=~'b.*'", ()),
        ("a!='b'", ()),
        ("a!~'b'", ()),
    ],
)
def test_a_matcher_says_which_values_it_asks_for(matcher: str, wants: tuple[str, ...]) -> None:
    (selector,) = selectors(parse(f"x{{{matcher}}}"))
    assert selector.matchers[0].wants == wants


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("x > 5", "x"),
        ("5 < x", "x"),
        ("x > bool 5", "(x) > bool (5)"),
        ("a > on (b) c", "(a) > bool on (b) (c)"),
        ("a unless b", "a"),
        ("sum(rate(a[5m] offset 1h)) > 2 * a offset 1d", "(sum (rate (a[5m]))) > bool ((2) * (a))"),
        ("absent(x)", "vector(1)"),
        ("a > 1 and b < 2", "(a) and (b)"),
        ("a > 1 or b < 2", "(a) or (b)"),
        ("sum(x > 5) / (sum(y) > 0)", "(sum (x)) / (sum (y))"),
        ("count_over_time((x > 5)[1h:]) > 1", "count_over_time ((x)[1h:])"),
        ("max_over_time((a + b)[1h:])", "max_over_time (((a) + (b))[1h:])"),
    ],
)
def test_what_makes_an_expression_empty_on_purpose_is_left_out(text: str, left: str) -> None:
    assert relaxed(parse(text)).replace("  ", " ") == left.replace("  ", " ")
    parse(relaxed(parse(text)))


def test_joins_are_where_labels_of_two_vectors_must_agree() -> None:
    text = "a * on (x) b + 1 > c or (d unless e) and f / scalar(g)"
    assert [(j.operator, j.matching) for j in joins(parse(text))] == [("*", "on (x)"), (">", ""), ("and", "")]


@pytest.mark.parametrize("name", ["minimal", "full", "hostile"])
def test_everything_that_is_rendered_can_be_read(name: str) -> None:
    made = render(hostile_policy() if name == "hostile" else policy(name), DRILLS, "a.yaml")
    queries = [query for path, text in made.items() for query in read(path, text).queries if query.role != "panel"]
    assert len(queries) > 50
    for query in queries:
        assert list(selectors(parse(query.text))) or query.text == "vector(time())"


def test_the_page_of_this_repository_is_one_of_them() -> None:
    made = render(load(HERE.parents[1] / "controlplane.yaml").policy, (), "controlplane.yaml")
    (rules,) = (read(path, text) for path, text in made.items() if path.endswith("rules.yml"))
    for query in rules.queries:
        assert write(parse(write(parse(query.text)))) == write(parse(query.text))
