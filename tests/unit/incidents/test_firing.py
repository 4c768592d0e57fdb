"""How many of what fires, and where the books and Alertmanager do not agree."""

from msgspec.structs import replace

from controlplane.incidents.alert import Source, Status
from controlplane.incidents.firing import EVALUATED_AT, Change, Tally, compare, way_s
from tests.support.webhooks import T0, alert, later

AM, GRAFANA = Source.ALERTMANAGER, Source.GRAFANA
FIRING, RESOLVED = Status.FIRING, Status.RESOLVED


def change(fingerprint: str, was: Status | None, status: Status, name: str = "A", service: str = "chat") -> Change:
    return Change(fingerprint, name, service, AM, was, status)


def test_a_name_fires_from_its_first_alert_to_the_end_of_its_last() -> None:
    tally = Tally()
    assert tally.take([change("1", None, FIRING), change("2", None, FIRING)])
    assert not tally.take([change("1", FIRING, FIRING)])
    assert not tally.take([change("1", FIRING, RESOLVED)])
    assert tally.names("chat") == {"A"}
    assert not tally.take([change("3", None, RESOLVED)])
    assert tally.take([change("2", FIRING, RESOLVED)])
    assert tally.names("chat") == frozenset()
    assert tally.take([change("2", RESOLVED, FIRING)])
    assert tally.names("chat") == {"A"}


def test_alerts_of_other_services_do_not_count_and_those_of_none_do() -> None:
    tally = Tally()
    tally.reset({("A", "chat", AM): 2, ("B", "", GRAFANA): 1, ("C", "search", AM): 1, ("D", "chat", AM): 0})
    assert tally.names("chat") == {"A", "B"}
    assert tally.names("chat", (GRAFANA,)) == {"B"}


def test_what_is_only_there_was_never_heard_and_what_is_only_here_is_absent() -> None:
    here, there = alert("Here"), alert("There")
    books = {here.fingerprint: later(1), alert("Both").fingerprint: later(1), alert("New").fingerprint: later(9)}
    found = compare(books, (there, alert("Both")), later(5))
    assert found.unheard == (there,)
    assert found.absent == {here.fingerprint}, "what was told of since it was asked is newer than the answer"


def test_the_way_of_a_watchdog_is_from_its_evaluation_or_from_its_start_the_first_time() -> None:
    dog = alert("Watchdog")
    assert way_s(dog, later(3), new=True) == 3.0
    assert way_s(dog, later(3), new=False) is None
    dated = replace(dog, annotations={EVALUATED_AT: f"{T0.timestamp() + 60:.12e}"})
    assert way_s(dated, later(62), new=False) == 2.0
    for odd in ("", "soon", "NaN", "+Inf"):
        assert way_s(replace(dog, annotations={EVALUATED_AT: odd}), later(3), new=False) is None
