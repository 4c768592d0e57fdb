"""What is asked of an API server next, and what its answers mean."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.fleet.following import LONGEST_PAUSE_S, PAGE, Change, Following, GoneError


def thing(name: str, version: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def page(*names: str, version: int = 10, more: str = "") -> dict[str, Any]:
    meta = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    return {"metadata": meta, "items": [thing(name) for name in names]}


def followed() -> Following:
    state = Following()
    state.listed(page("a"))
    return state


def test_a_list_comes_page_by_page_and_counts_when_it_is_whole() -> None:
    state = Following()
    assert state.ask().query == {"limit": str(PAGE)}
    assert state.listed(page("a", more="token")) is None
    assert state.ask().query == {"limit": str(PAGE), "continue": "token"}
    assert state.listed(page("b")) == Change((thing("a"), thing("b")), whole=True)


def test_after_the_list_comes_a_watch_from_its_place() -> None:
    asked = followed().ask()
    assert asked.verb == "watch"
    assert asked.query["resourceVersion"] == "10"
    assert asked.query["allowWatchBookmarks"] == "true"


def test_what_a_watch_tells_moves_its_place_on_and_so_do_bookmarks() -> None:
    state = followed()
    assert state.told({"type": "ADDED", "object": thing("b", 11)}) == Change((thing("b", 11),))
    assert state.told({"type": "DELETED", "object": thing("b", 12)}) == Change((thing("b", 12),), removed=True)
    assert state.told({"type": "BOOKMARK", "object": thing("", 40)}) is None
    assert state.ask().query["resourceVersion"] == "40"


def test_a_watch_that_was_cut_goes_on_where_it_was() -> None:
    state = followed()
    state.told({"type": "MODIFIED", "object": thing("a", 15)})
    state.failed(0.5)
    assert (state.ask().verb, state.ask().query["resourceVersion"]) == ("watch", "15")


def test_a_place_that_is_lost_is_listed_anew() -> None:
    state = followed()
    with pytest.raises(GoneError):
        state.told({"type": "ERROR", "object": {"kind": "Status", "code": 410}})
    state.gone()
    assert state.ask().verb == "list"
    assert state.listed(page("b", version=50)) == Change((thing("b"),), whole=True)
    assert state.ask().query["resourceVersion"] == "50"


@pytest.mark.parametrize("end", [Following.gone, lambda state: state.failed(0.5)])
def test_half_a_list_is_none(end: Any) -> None:
    state = Following()
    state.listed(page("a", more="token"))
    end(state)
    assert "continue" not in state.ask().query
    assert state.listed(page("b")) == Change((thing("b"),), whole=True)


@pytest.mark.parametrize(
    "line",
    [
        {}, {"type": "ADDED"}, {"type": "ADDED", "object": []}, {"type": "ADDED", "object": {}},
        {"type": "ADDED", "object": {"metadata": {"name": "a"}}},
        {"type": "ERROR", "object": {"code": 500, "message": "etcd"}},
    ],
)  # fmt: skip
def test_a_line_of_another_shape_is_refused_and_moves_nothing(line: dict[str, Any]) -> None:
    state = followed()
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        state.told(line)
    assert state.version == "10"


@pytest.mark.parametrize(
    "answer", [{}, {"metadata": {}}, {"metadata": {"resourceVersion": "1"}, "items": "x"}, {"metadata": 1}]
)
def test_an_answer_that_is_no_list_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no list"):
        Following().listed(answer)


def test_pauses_double_up_to_a_longest_one_and_start_anew_after_an_answer() -> None:
    state = Following()
    pauses = [state.failed(0.5) for _ in range(8)]
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == LONGEST_PAUSE_S
    state.listed(page())
    assert state.failed(0.5) == 0.2
    assert state.failed(0.5, wanted_s=7.0) == 7.0, "what the server asks for"


@given(st.floats(0, 1), st.integers(0, 40))
def test_a_pause_is_spread_over_half_to_one_and_a_half_of_it(random: float, failures: int) -> None:
    state = Following()
    for _ in range(failures):
        state.failed(0.0)
    assert 0.1 <= state.failed(random) <= 1.5 * LONGEST_PAUSE_S


# -- whatever a connection does, what is known in the end is what there is ---------------------------------------------


class Server:
    """What there is, what happened to it, and one who follows."""

    def __init__(self) -> None:
        self.version = 1
        self.there: set[str] = set()
        self.history: list[tuple[int, str, str]] = []
        self.lost = False
        self.state = Following()
        self.known: set[str] = set()

    def happen(self, what: str, name: str) -> None:
        if what == "put":
            self.tell("MODIFIED" if name in self.there else "ADDED", name)
            self.there.add(name)
        elif what == "delete" and name in self.there:
            self.tell("DELETED", name)
            self.there.discard(name)
        elif what == "cut":
            self.state.failed(0.5)
        elif what == "forget":
            self.lost = True
        elif what == "half a list":
            self.state.gone()
            self.state.listed(page(name, more="token"))
            self.state.failed(0.5)
        elif what == "bookmark":
            self.catch_up()
            self.state.told({"type": "BOOKMARK", "object": thing("", self.version)})

    def tell(self, kind: str, name: str) -> None:
        self.version += 1
        self.history.append((self.version, kind, name))

    def catch_up(self) -> None:
        if self.lost and self.state.version:
            self.state.gone()
        self.lost = False
        if self.state.ask().verb == "list":
            self.take(self.state.listed(page(*self.there, version=self.version)))
        for version, kind, name in [told for told in self.history if told[0] > int(self.state.version)]:
            self.take(self.state.told({"type": kind, "object": thing(name, version)}))

    def take(self, change: Change | None) -> None:
        assert change is not None
        names = {found["metadata"]["name"] for found in change.objects}
        self.known = names if change.whole else self.known - names if change.removed else self.known | names


HAPPENS = ("put", "delete", "cut", "forget", "half a list", "bookmark")


@given(st.lists(st.tuples(st.sampled_from(HAPPENS), st.sampled_from("abcd")), max_size=40))
def test_whatever_happens_to_the_connection_what_is_known_is_what_there_is(happens: list[tuple[str, str]]) -> None:
    server = Server()
    server.catch_up()
    for what, name in happens:
        server.happen(what, name)
    server.catch_up()
    assert server.known == server.there
