"""Incidents are found, counted and answered for; whoever says something is who the request proves to be."""

from urllib.parse import quote, urlencode

import pytest

from controlplane.incidents.incident import Wanted
from controlplane.web.frame import Frame
from controlplane.web.handling import IncidentList, list_sheet
from tests.support import incident_pages, overviews
from tests.unit.web.test_api import TOKEN, Server, server
from tests.unit.web.test_console import Page

__all__ = ["server"]
VIEW = overviews.failover()
STILL = next(of.incident for of in VIEW.incidents if of.incident.open)
OVER = next(of.incident for of in VIEW.incidents if not of.incident.open)
HERE = f"/api/v1/incidents/{quote(STILL.id, safe='')}"


async def test_the_author_is_whoever_the_token_belongs_to_and_no_field_of_the_body(server: Server) -> None:
    refused = await server.post(f"{HERE}/note", {"text": "seen", "who": "mallory"})
    assert refused.status == 422
    assert server.told.calls == []
    assert (await server.post(f"{HERE}/note", {"text": "seen"})).status == 200
    timeline = (await server.get(HERE)).json["timeline"]
    who = server.told.calls[0].partition(":")[0]
    assert who
    assert [(e["kind"], e["who"], e["text"]) for e in timeline if e["kind"] == "note"] == [("note", who, "seen")]


async def test_an_incident_is_acknowledged_once_given_resolved_with_a_reason_and_opened_again(server: Server) -> None:
    assert (await server.post(f"{HERE}/acknowledge", {})).json["acknowledged_by"]
    again = await server.post(f"{HERE}/acknowledge", {})
    assert (again.status, again.is_problem) == (409, True)
    assert (await server.post(f"{HERE}/assign", {"to": "bob"})).json["assignee"] == "bob"
    assert (await server.post(f"{HERE}/resolve", {})).status == 422
    assert (await server.post(f"{HERE}/resolve", {"why": "mended"})).json["state"] == "resolved"
    assert (await server.post(f"{HERE}/assign", {"to": "cy"})).status == 409
    assert (await server.post(f"{HERE}/reopen", {"why": "no"})).json["state"] == "open"
    assert (await server.post("/api/v1/incidents/nope/note", {"text": "x"})).status == 404


async def test_incidents_are_found_by_their_state_and_one_comes_with_what_belongs_to_it(server: Server) -> None:
    found = (await server.get("/api/v1/incidents?state=resolved")).json
    assert [item["incident"]["id"] for item in found] == [OVER.id]
    assert (await server.get("/api/v1/incidents?state=new")).status == 422
    one = (await server.get(f"/api/v1/incidents/{quote(OVER.id, safe='')}")).json
    assert one["members"][0]["name"] == "Slow"
    assert one["took_s"]["resolve"] > 0
    assert (await server.get("/api/v1/incidents/nope")).status == 404
    groups = (await server.get("/api/v1/incidents/statistics")).json
    assert groups[0]["level"] == "all"


@pytest.mark.parametrize(("verb", "text", "told"), [("note", "hm", ""), ("resolve", "", "a reason is needed")])
async def test_the_forms_of_the_page_work_without_scripts(server: Server, verb: str, text: str, told: str) -> None:
    page = f"/incidents/{quote(STILL.id, safe='')}"
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/x-www-form-urlencoded"}
    sent = server.session.post(
        f"{server.url}{page}/{verb}", data=urlencode({"text": text}), headers=headers, allow_redirects=False
    )
    async with sent as answer:
        assert answer.status == (409 if told else 303)
        assert told in await answer.text()
        assert answer.headers.get("location", "") == ("" if told else f"{page}?said={verb}")


async def test_the_list_shows_state_level_age_and_who_has_it_and_keeps_the_filter() -> None:
    handling = incident_pages.handling(VIEW)
    found = tuple(of.incident for of in await handling.find(Wanted(), 9))
    view = IncidentList(VIEW.standing, found, Wanted("open"), handling.statistics(), VIEW.now, VIEW.version)
    page = Page(list_sheet(view).page(Frame("mei", "viewer"), "/x"))
    assert page.misnested == []
    assert len(list(page.all("option"))) == 12
    assert next(o["value"] for o in page.all("option") if "selected" in o) == "open"
    assert "nobody yet" in page.text
    assert "MTTR" in page.text


async def test_a_hostile_title_is_text_on_the_list() -> None:
    view = overviews.hostile()
    found = tuple(of.incident for of in view.incidents)
    made = IncidentList(view.standing, found, Wanted(), (), view.now, view.version)
    page = Page(list_sheet(made).page(Frame("mei", "viewer"), "/x"))
    assert page.misnested == []
    assert [tag for tag, _ in page.elements if tag == "img"] == []
