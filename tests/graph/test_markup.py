"""What notebooks show of graphs: well-formed HTML in which text stays text."""

from xml.etree import ElementTree

import pytest

from interpose.graph import Graph, Site, World, markup
from interpose.graph.nodes import Read, Ref, Save, Write

EVIL = "<script>alert(1)</script>\"'&"


def parsed(html: str) -> ElementTree.Element:
    """The pieces under one root; what is not well formed is an error."""
    return ElementTree.fromstring(f"<root>{html}</root>")


def text(html: str) -> str:
    return "".join(parsed(html).itertext())


@pytest.mark.parametrize(
    "html",
    [
        markup.text(EVIL),
        markup.lines(EVIL),
        markup.title(EVIL),
        markup.table([EVIL], [["x"]]),
        markup.table([], [[EVIL]], marked=[(0, 0)]),
        markup.bars([(EVIL, 1.0)]),
    ],
    ids=["text", "lines", "title", "head", "cell", "bar"],
)
def test_text_stays_text(html: str) -> None:
    assert EVIL in text(html)
    assert not [each for each in parsed(html).iter() if each.tag.endswith("script")]


def test_bars_lie_on_the_side_of_their_sign_and_are_as_long_as_their_numbers() -> None:
    bars = [
        each.attrib for each in parsed(markup.bars([("a", 2.0), ("b", -1.0), ("c", 0.0)])).iter() if "rect" in each.tag
    ]
    zero = float(bars[0]["x"])
    assert float(bars[0]["width"]) == pytest.approx(2 * float(bars[1]["width"]), abs=0.2)
    assert float(bars[1]["x"]) + float(bars[1]["width"]) == pytest.approx(zero, abs=0.2)
    assert bars[0]["fill"] != bars[1]["fill"]
    assert parsed(markup.bars([])) is not None


def test_a_graph_is_shown_as_its_program_under_its_worlds() -> None:
    site = Site("layers.1.output")
    nodes = (Read(site=site, world="clean"), Write(site=site, world=EVIL, value=Ref(0)), Save(name=EVIL, value=Ref(0)))
    graph = Graph((World("clean"), World(EVIL, base="clean")), nodes)
    shown = text(graph._repr_html_())
    assert "Graph of 3 steps" in shown
    assert f'world("{EVIL}", base="clean")' in shown
    for line in str(graph).splitlines():
        assert line.strip().removesuffix(":") in shown
