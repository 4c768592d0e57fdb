"""The audit log's chain: whatever is changed, taken away or moved shows, and shows where."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from controlplane.security.chain import Break, Deed, Head, Link, against, clean, extend, follow, seal

TEXT = st.text(max_size=20).map(clean)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis
DEEDS = st.builds(Deed, MOMENTS, *([TEXT] * 8))
NAMES = [field.name for field in fields(Deed) if field.name != "at"]


def chain(deeds: list[Deed]) -> list[Link]:
    links: list[Link] = []
    for deed in deeds:
        links.append(extend(Head(links[-1].number, links[-1].hash) if links else Head(), deed))
    return links


CHAINS = st.lists(DEEDS, min_size=2, max_size=8).map(chain)


@given(CHAINS)
def test_a_log_that_nobody_touched_holds(links: list[Link]) -> None:
    head, breaks = follow(Head(), links)
    assert breaks == ()
    assert head == Head(len(links), links[-1].hash)
    assert against(head, head, head, head.hash) == ()


@given(CHAINS, st.integers(1, 7))
def test_following_it_in_pages_is_following_it_at_once(links: list[Link], size: int) -> None:
    head, found = Head(), list[Break]()
    for start in range(0, len(links), size):
        head, breaks = follow(head, links[start : start + size])
        found += breaks
    assert (head, tuple(found)) == follow(Head(), links)


@given(CHAINS, st.data())
def test_a_row_that_was_changed_is_named(links: list[Link], data: Any) -> None:
    at = data.draw(st.integers(0, len(links) - 1))
    if data.draw(st.booleans()):
        other = replace(links[at].deed, at=links[at].deed.at + timedelta(microseconds=1))
    else:
        name, text = data.draw(st.sampled_from(NAMES)), data.draw(TEXT)
        assume(text != getattr(links[at].deed, name))
        other = replace(links[at].deed, **{name: text})
    links[at] = replace(links[at], deed=other)
    _, breaks = follow(Head(), links)
    assert [found.number for found in breaks] == [at + 1]
    assert "was changed" in breaks[0].what


@given(CHAINS, st.data())
def test_a_row_that_was_changed_and_sealed_again_shows_at_the_next(links: list[Link], data: Any) -> None:
    at = data.draw(st.integers(0, len(links) - 1))
    other = replace(links[at].deed, who=links[at].deed.who + "!")
    forged = replace(links[at], deed=other, hash=seal(at + 1, other, links[at].before))
    kept = Head(len(links), links[-1].hash)
    links[at] = forged
    head, breaks = follow(Head(), links)
    found = [*breaks, *against(head, kept, None, None)]
    assert [b.number for b in found] == [min(at + 2, len(links))]


@given(CHAINS, st.data())
def test_rows_that_were_taken_away_are_named(links: list[Link], data: Any) -> None:
    first = data.draw(st.integers(0, len(links) - 1))
    last = data.draw(st.integers(first, len(links) - 1))
    kept = Head(len(links), links[-1].hash)
    left = links[:first] + links[last + 1 :]
    head, breaks = follow(Head(), left)
    found = [*breaks, *against(head, kept, None, None)]
    gone = f"row {first + 1} is" if first == last else f"rows {first + 1} to {last + 1} are"
    assert [b.what for b in found] == [f"{gone} missing"]


@given(CHAINS, st.data())
def test_rows_that_changed_places_are_named(links: list[Link], data: Any) -> None:
    a, b = sorted(data.draw(st.permutations(range(len(links))))[:2])
    swapped = list(links)
    swapped[a] = replace(links[b], number=a + 1)
    swapped[b] = replace(links[a], number=b + 1)
    _, breaks = follow(Head(), swapped)
    assert {a + 1, b + 1} <= {found.number for found in breaks}


@given(CHAINS)
def test_a_whole_new_log_shows_against_a_head_that_was_noted(links: list[Link]) -> None:
    noted = Head(links[-1].number, links[-1].hash)
    forged = chain([replace(link.deed, who=link.deed.who + "!") for link in links])
    head, breaks = follow(Head(), forged)
    assert breaks == ()
    found = against(head, head, noted, forged[-1].hash)
    assert [b.number for b in found] == [noted.number]
    assert "missing" in against(head, head, Head(99, "0" * 64), None)[0].what


@given(DEEDS, DEEDS, st.integers(1, 5))
def test_two_rows_have_one_hash_only_when_they_say_the_same(one: Deed, other: Deed, number: int) -> None:
    assert (seal(number, one, "a") == seal(number, other, "a")) == (one == other)
    assert seal(number, one, "a") != seal(number + 1, one, "a")
    assert seal(number, one, "a") != seal(number, one, "b")


def test_a_text_that_moves_from_one_field_to_the_next_is_another_row() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    one = Deed(at, "a", "b", "", "", "", "", "")
    assert seal(1, one, "") != seal(1, replace(one, who="ab", role=""), "")
    assert seal(1, replace(one, who='a","b'), "") != seal(1, one, "")


def test_a_text_is_made_fit_for_any_database() -> None:
    assert clean("a\0b\udc80c") == "a\N{REPLACEMENT CHARACTER}b?c"
    assert len(clean("x" * 5000)) == 1000
