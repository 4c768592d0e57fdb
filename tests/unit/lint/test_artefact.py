"""Files are known by their content."""

import json

import pytest

from controlplane.lint.artefact import Kind, label_values, read

RULES = {
    "groups": [
        {
            "name": "g",
            "rules": [
                {
                    "alert": "A",
                    "expr": "up == 0",
                    "annotations": {"runbook_url": "runbooks/a.md#a", "summary": "[x](y)"},
                },
                {"record": "job:up:sum", "expr": "sum by (job) (up)"},
            ],
        }
    ]
}
BOARD = {
    "uid": "u",
    "links": [{"url": "/d/other"}],
    "annotations": {"list": [{"name": "M", "expr": "m > 0"}]},
    "templating": {
        "list": [
            {
                "name": "pool",
                "type": "query",
                "query": {"query": "label_values(up{a='b'}, pool)"},
                "current": {"value": "$__all"},
            },
            {"name": "window", "type": "custom", "query": "1m,5m"},
        ]
    },
    "panels": [
        {"type": "row", "panels": [{"title": "P", "targets": [{"refId": "A", "expr": "x"}]}]},
        {"title": "T", "type": "text", "options": {"content": "see [this](/d/third)"}},
    ],
}


@pytest.mark.parametrize(
    "wrapped", [RULES, {"kind": "PrometheusRule", "spec": RULES},
                {"kind": "ConfigMap", "data": {"a.yml": json.dumps(RULES)}},
                {"kind": "List", "items": [{"kind": "PrometheusRule", "spec": RULES}]}],
)  # fmt: skip
def test_rules_are_read_bare_and_wrapped(wrapped: object) -> None:
    page = read("alerts/x.yaml", json.dumps(wrapped))
    assert page.kind is Kind.RULES
    assert [(q.where, q.role, q.text) for q in page.queries] == [
        ("A", "alert", "up == 0"), ("job:up:sum", "record", "sum by (job) (up)"),
    ]  # fmt: skip
    assert [link.target for link in page.links] == ["runbooks/a.md#a"]
    assert page.records == ("job:up:sum",)


@pytest.mark.parametrize(
    "wrapped", [BOARD, {"dashboard": BOARD}, {"kind": "ConfigMap", "data": {"a.json": json.dumps(BOARD)}}]
)
def test_dashboards_are_read_bare_and_wrapped(wrapped: object) -> None:
    page = read("dashboards/x.json", json.dumps(wrapped))
    assert page.kind is Kind.DASHBOARD
    assert page.uids == {"u"}
    assert {q.where: q.text for q in page.queries} == {
        "mark M": "m > 0", "variable pool": "up{a='b'}", "panel P A": "x",
    }  # fmt: skip
    assert [link.target for link in page.links] == ["/d/other", "/d/third"]
    assert page.variables["window"].values == ("1m", "5m")
    assert page.variables["pool"].values == ()


def test_a_config_map_may_hold_several_dashboards() -> None:
    other = {**BOARD, "uid": "v", "templating": {"list": [{"name": "gpu", "type": "custom", "query": "0"}]}}
    data = {"a.json": json.dumps(BOARD), "b.json": json.dumps(other)}
    page = read("dashboards/x.yaml", json.dumps({"kind": "ConfigMap", "data": data}))
    assert page.uids == {"u", "v"}
    assert set(page.variables) == {"pool", "window", "gpu"}


@pytest.mark.parametrize(
    "other",
    [{"rule_files": ["a.yml"], "tests": []}, {"route": {"receiver": "x"}, "receivers": []}, [1, 2], "text", None],
)
def test_other_files_ask_nothing(other: object) -> None:
    page = read("alerts/x.yml", json.dumps(other))
    assert (page.kind, page.queries, page.links) == (Kind.OTHER, (), ())


@pytest.mark.parametrize(("path", "text"), [("a.json", "{"), ("a.yml", "a: [b"), ("a.yml", "a: b: c")])
def test_a_file_that_cannot_be_read_says_why(path: str, text: str) -> None:
    page = read(path, text)
    assert page.kind is Kind.BROKEN
    assert page.problem


def test_a_runbook_is_queries_line_by_line_and_links_outside_code() -> None:
    text = (
        "# A\n\n[one](two.md#three) and `[no](code.md)` <https://example.org/x>\n\n```promql\nup == 1\nsum(up)\n```\n\n"
        "1. x\n\n   ```promql\n   sum(\n     up\n   )\n   ```\n\n```sh\n[ -f x ](y)\n```\n"
    )
    page = read("runbooks/a.md", text)
    assert [(q.where, q.text) for q in page.queries][:2] == [("line 6", "up == 1"), ("line 6", "sum(up)")]
    assert page.queries[2].text.split() == ["sum(", "up", ")"]
    assert [(link.where, link.target) for link in page.links] == [
        ("line 3", "two.md#three"),
        ("line 3", "https://example.org/x"),
    ]


def test_a_block_that_is_no_promql_is_kept_whole_to_be_told() -> None:
    (query,) = read("a.md", "```promql\nsum by (\n```\n").queries
    assert query.text == "sum by ("


@pytest.mark.parametrize(
    ("query", "found"),
    [("label_values(up, pool)", ("up", "pool")), ("label_values(pool)", ("", "pool")), ("metrics(.*)", None),
     ('label_values(up{a="b,c", d=~"e"}, pool)', ('up{a="b,c", d=~"e"}', "pool"))],
)  # fmt: skip
def test_label_values_are_taken_apart(query: str, found: tuple[str, str] | None) -> None:
    assert label_values(query) == found
