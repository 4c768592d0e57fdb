"""One table, three pictures: the console's, the documentation's and the runbooks'."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from controlplane.degradation.machine import TRANSITIONS, Phase
from controlplane.web.diagram import edges, machine_svg, mermaid

DOCS = Path(__file__).resolve().parents[3] / "docs" / "matrix.md"


def test_every_transition_is_on_an_edge_and_no_other() -> None:
    drawn = {(was, cue, to) for (was, to), cues in edges().items() for cue in cues}
    assert drawn == {(was, cue.value, transition.to) for (was, cue), transition in TRANSITIONS.items()}


def test_the_documentation_shows_the_machine_that_runs() -> None:
    (shown,) = re.findall(r"```mermaid\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert shown == mermaid()


def test_the_picture_names_every_phase_and_cue_and_where_each_row_stands() -> None:
    svg = ET.fromstring(machine_svg({"P0": Phase.ENGAGED, "P1": Phase.IDLE, "P2": Phase.IDLE}))  # noqa: S314 - ours
    texts = [text.text or "" for text in svg.iter("text")]
    assert {"engaged · P0", "idle · P1, P2", "pending"} <= set(texts)
    words = {word for text in texts for word in re.split(r"[,·] ?| ", text)}
    assert {cue.value for _, cue in TRANSITIONS} <= words
    assert "↻ well, worse, release" in texts
    assert "style" not in {name for element in svg.iter() for name in element.attrib}


def test_nothing_is_drawn_outside_the_picture() -> None:
    svg = ET.fromstring(machine_svg({}))  # noqa: S314 - ours
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for text in svg.iter("text"):
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height
