"""In whatever order notices come, however often, and in however many pieces: the same incidents come of them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.incidents.alert import Status
from controlplane.incidents.correlate import (
    HOLD,
    Case,
    Ignore,
    Notice,
    Open,
    correlate,
    row_is_back,
    row_key,
    row_moves,
)
from controlplane.incidents.incident import LEVELS, SEVERITIES, Entry, IncidentState, Severity

T0 = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@st.composite
def alerts(draw: st.DrawFn) -> list[Notice]:
    """Tellings of one alert, from its first start to, perhaps, its last end; they never overlap."""
    number = draw(st.integers(0, 10_000))
    notice = Notice(
        f"f{number}", draw(st.sampled_from(("Slow", "Failing", "Stalled"))), "chat", Status.FIRING, T0,
        severity=draw(st.sampled_from((Severity.WARNING, Severity.CRITICAL))), level=draw(st.sampled_from(LEVELS)),
        place=draw(st.sampled_from(("", "", "standby"))), about=draw(st.sampled_from(("serving", "control plane"))),
        drill_id=draw(st.sampled_from(("", "d1"))),
    )  # fmt: skip
    told, at = list[Notice](), draw(st.integers(0, 9))
    for _ in range(draw(st.integers(1, 3))):
        begun = replace(notice, starts_at=T0 + timedelta(seconds=at), began_at=T0 + timedelta(seconds=at))
        lasts = draw(st.integers(1, 5))
        told.append(begun)
        told.append(replace(begun, status=Status.RESOLVED, ends_at=begun.starts_at + timedelta(seconds=lasts)))
        at += lasts + draw(st.integers(1, 4))
    return told if draw(st.booleans()) else told[:-1]


def distinct(some: list[list[Notice]]) -> list[Notice]:
    return [notice for told in {told[0].key: told for told in some}.values() for notice in told]


STORIES = st.lists(alerts(), min_size=1, max_size=5).map(distinct)


def after(cases: dict[str, Case], notices: Iterable[Notice], now: datetime) -> dict[str, Case]:
    """Do what a ruling says, as the store does."""
    kept = dict(cases)
    for case in correlate(notices, cases.values(), now).cases:
        old = kept.get(case.incident.id)
        kept[case.incident.id] = Case(case.incident, {**(old.members if old else {}), **case.members})
    return kept


def what_counts(cases: dict[str, Case]) -> set[object]:
    """Everything of incidents but their names and the moments at which something was heard."""
    return {
        (
            frozenset((m.key, m.status, m.starts_at) for m in case.members.values()),
            case.incident.level, case.incident.severity, case.incident.state, case.incident.drill_id == "",
            case.incident.pool, case.incident.about,
        )
        for case in cases.values()
    }  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(STORIES, st.data())
def test_any_order_any_repetition_any_pieces_give_the_same_incidents(story: list[Notice], data: st.DataObject) -> None:
    whole = after({}, story, T0 + timedelta(seconds=60))
    again = data.draw(st.lists(st.sampled_from(story), max_size=6))
    shuffled = data.draw(st.permutations(story + again))
    pieces, now = dict[str, Case](), T0 + timedelta(seconds=60)
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        now += timedelta(milliseconds=1)
        pieces, shuffled = after(pieces, shuffled[:size], now), shuffled[size:]
    assert what_counts(pieces) == what_counts(whole)
    later = T0 + timedelta(seconds=61) + 2 * HOLD
    assert what_counts(after(pieces, (), later)) == what_counts(after(whole, (), later))


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_what_was_told_once_changes_nothing_when_it_is_told_again(story: list[Notice]) -> None:
    now = T0 + timedelta(seconds=60)
    once = after({}, story, now)
    ruling = correlate(story, once.values(), now + timedelta(seconds=1))
    assert ruling.cases == ()
    assert ruling.entries == ()
    assert all(isinstance(decision, Ignore) for decision in ruling.decisions)


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_every_notice_is_decided_with_a_reason_and_no_two_open_incidents_are_of_one_harm(story: list[Notice]) -> None:
    ruling = correlate(story, (), T0 + timedelta(seconds=60))
    decided = {d.key for d in ruling.decisions if not hasattr(d, "incident_id") or hasattr(d, "key")}
    assert decided == {notice.key for notice in story}
    assert all(decision.why for decision in ruling.decisions)
    harms = [(c.incident.pool, c.incident.about) for c in ruling.cases if c.incident.open]
    assert len(harms) == len(set(harms))
    assert sum(isinstance(d, Open) for d in ruling.decisions) == len(ruling.cases)


@settings(max_examples=100, deadline=None)
@given(STORIES, st.permutations([0, 1]))
def test_a_row_and_the_alerts_of_one_harm_are_one_incident_whichever_comes_first(
    story: list[Notice], order: list[int]
) -> None:
    row = Notice(row_key("P0"), "P0", "chat", Status.FIRING, T0, severity=Severity.CRITICAL, level="P0", row=True)
    mine = [replace(n, place="", about="serving") for n in story]
    cases = dict[str, Case]()
    for number in order:
        cases = after(cases, (mine, [row])[number], T0 + timedelta(seconds=60 + number))
    (case,) = cases.values()
    assert case.incident.level == "P0"
    assert case.incident.rows == ("P0",)
    assert case.incident.severity is max(SEVERITIES, key=SEVERITIES.index)
    assert set(case.members) == {row.key, *(n.key for n in mine)}


@settings(max_examples=100, deadline=None)
@given(st.sets(st.sampled_from(("P0 is back", "P2 is back", "P1 moves"))), st.data())
def test_an_incident_is_mitigated_until_its_last_row_is_back_or_one_more_moves(
    said: set[str], data: st.DataObject
) -> None:
    alert = Notice("f1", "Slow", "chat", Status.FIRING, T0)
    entry = Entry(T0, "lever", "")
    cases = after({}, [alert, *(row_moves("chat", level, "", T0, T0, (entry,)) for level in ("P0", "P2"))], T0)
    cases = {
        key: replace(case, incident=replace(case.incident, state=IncidentState.MITIGATED))
        for key, case in cases.items()
    }
    now = T0 + timedelta(seconds=60)
    tellings = {
        "P0 is back": row_is_back("chat", "P0", now, entry),
        "P2 is back": row_is_back("chat", "P2", now, entry),
        "P1 moves": row_moves("chat", "P1", "", now, now, (entry,)),
    }
    left = data.draw(st.permutations(sorted(said)))
    while left:
        size = data.draw(st.integers(1, len(left)))
        cases, left = after(cases, [tellings[one] for one in left[:size]], now), left[size:]
    (case,) = cases.values()
    unmitigated = "P1 moves" in said or said == {"P0 is back", "P2 is back"}
    assert case.incident.state is (IncidentState.OPEN if unmitigated else IncidentState.MITIGATED)
