"""What is read of a webhook, and which telling of an alert is the later."""

import json
from itertools import permutations

import pytest

from controlplane.incidents.alert import (
    LABELS_AT_MOST,
    NAME_AT_MOST,
    VALUE_AT_MOST,
    Source,
    Status,
    Unreadable,
    Webhook,
    bounded,
    fingerprint,
    latest,
    read_listing,
    read_webhook,
    supersedes,
)
from tests.support.webhooks import GRAFANA, GRAFANA_ALERT, T0, alert, later, told, webhook


def read(body: bytes) -> Webhook:
    found = read_webhook(body)
    assert isinstance(found, Webhook), found
    return found


def test_a_webhook_of_alertmanager_is_read_whole() -> None:
    firing, ended = alert("Slow", service="chat"), alert("Down", "resolved", 1.0, 2.0)
    found = read(webhook([told(firing), told(ended)], truncatedAlerts=3))
    assert found == Webhook((firing, ended), 3)


def test_a_webhook_of_grafana_is_told_from_one_of_alertmanager() -> None:
    (found,) = read(webhook([told(alert("Slow")) | GRAFANA_ALERT], **GRAFANA)).alerts
    assert found.source is Source.GRAFANA
    assert (found.name, found.status) == ("Slow", Status.FIRING)


def test_times_are_cut_to_the_milliseconds_that_the_api_gives() -> None:
    (found,) = read(webhook([told(alert("A"), startsAt="2026-11-21T11:00:00.123999999+01:00")])).alerts
    assert found.starts_at == later(0.123)
    assert found.starts_at.utcoffset() == T0.utcoffset()
    (listed,) = read_listing(
        json.dumps([{"labels": {"alertname": "A"}, "startsAt": "2026-11-21T10:00:00.123Z"}]).encode()
    )  # type: ignore[misc]
    assert listed.starts_at == found.starts_at
    assert listed.fingerprint == found.fingerprint


def test_an_alert_that_fires_has_no_end_whatever_is_told() -> None:
    (found,) = read(webhook([told(alert("A"), endsAt="2030-01-01T00:00:00Z")])).alerts
    assert found.ends_at is None


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"alerts": null}', b'{"alerts": [null]}', b"\xff\xfe", b'{"alerts": ["a"]}',
        webhook([{}]),
        webhook([told(alert("A"), status="unknown")]),
        webhook([told(alert("A"), labels={"a": 1})]),
        webhook([told(alert("A"), labels=None)]),
        webhook([told(alert("A"), startsAt="soon")]),
        webhook([told(alert("A"), startsAt="0001-01-01T00:00:00+05:00")]),
        webhook([told(alert("A"), startsAt=7)]),
        webhook([told(alert("A", "resolved"), endsAt="never")]),
        webhook([told(alert("A"))]).replace(b'"A"', b'"\\ud800"'),
        webhook([told(alert("A"))]).replace(b'"A"', b'"\xff"'),
        b"[" * 100_000,
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "alerts": []}',
    ],
    ids=range(21),
)  # fmt: skip
def test_what_can_never_be_right_is_said_to_be_so(body: bytes) -> None:
    found = read_webhook(body)
    assert isinstance(found, Unreadable)
    assert found.why


def test_an_alert_with_too_many_labels_is_kept_with_those_that_matter() -> None:
    labels = {f"label{i}": "x" for i in range(10_000)} | {"alertname": "Huge", "service": "chat"}
    (found,) = read(webhook([told(alert("Huge"), labels=labels, fingerprint="")])).alerts
    assert (found.name, found.service) == ("Huge", "chat")
    assert len(found.labels) == LABELS_AT_MOST
    assert found.labels["alertname"] == "Huge"
    assert found.fingerprint == fingerprint(labels)


def test_what_is_long_is_cut_and_what_no_database_takes_is_replaced() -> None:
    kept = bounded({"n" * 1000: "v" * 10_000, "nul": "a\0b"})
    assert {len(name): len(value) for name, value in kept.items()} == {NAME_AT_MOST: VALUE_AT_MOST, 3: 3}
    assert kept["nul"] == "a\N{REPLACEMENT CHARACTER}b"
    (found,) = read(webhook([told(alert("A\0" + "x" * 1000))])).alerts
    assert "\0" not in found.name
    assert len(found.name) == NAME_AT_MOST


def test_a_fingerprint_that_is_left_out_or_no_fingerprint_is_computed() -> None:
    for given in ("", "x" * 65):
        (found,) = read(webhook([told(alert("A"), fingerprint=given)])).alerts
        assert found.fingerprint == fingerprint({"alertname": "A"})
    assert fingerprint({}) == "cbf29ce484222325"


def test_a_later_start_outweighs_an_earlier_one_and_an_end_its_own_start() -> None:
    first, end = alert("A"), alert("A", "resolved", 0.0, 5.0)
    second = alert("A", starts=10.0)
    assert supersedes(end, first)
    assert supersedes(second, end)
    assert supersedes(second, first)
    for new, old in ((first, first), (first, end), (end, second), (first, second), (end, end)):
        assert not supersedes(new, old)


def test_the_end_of_an_alert_whose_start_alertmanager_moved_back_ends_it() -> None:
    known = alert("A", starts=10.0)
    assert supersedes(alert("A", "resolved", 0.0, 20.0), known)
    assert not supersedes(alert("A", "resolved", 0.0, 9.0), known)
    assert not supersedes(alert("A", "resolved", 0.0), known)


def test_what_is_left_of_many_tellings_does_not_depend_on_their_order() -> None:
    tellings = (alert("A"), alert("A", "resolved", 0.0, 5.0), alert("A", starts=10.0), alert("B"))
    expected = {(a.name, a.starts_at, a.status) for a in (alert("A", starts=10.0), alert("B"))}
    for order in permutations(tellings):
        left = latest(order + order)
        assert {(a.name, a.starts_at, a.status) for a in left} == expected
        assert [a.fingerprint for a in left] == sorted(a.fingerprint for a in left)


@pytest.mark.parametrize("body", [b"", b"{}", b'[{"labels": {}}]', b"[1]", b"\xff"])
def test_a_listing_that_is_none_is_said_to_be_so(body: bytes) -> None:
    assert isinstance(read_listing(body), Unreadable)
