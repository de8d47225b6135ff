"""A graph that has travelled is the graph that was sent; what was not sent by encode is refused, and only so."""

import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import interpose as ip
from interpose.errors import GraphError, SiteError
from interpose.graph.arguments import Dots, Dtype, Ref, Slice, Steps
from interpose.graph.nodes import (
    Apply,
    Call,
    Constant,
    Gradient,
    Graph,
    Input,
    Log,
    Node,
    Op,
    Read,
    Save,
    Skip,
    Stop,
    Weight,
    World,
    Write,
)
from interpose.graph.ops import DTYPES, OPS
from interpose.graph.sites import LAYER_SITES, MODEL_SITES, NEW_TOKENS, Site
from interpose.wire import decode, encode, graphs

_TEXT = st.text(max_size=8)
_NUMBERS = (
    st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.just(math.nan)
    | st.complex_numbers(allow_nan=False)
)
_STANDARD = [NEW_TOKENS, *MODEL_SITES, *(f"layers.{layer}.{name}" for layer in (0, 11) for name in LAYER_SITES)]
SITES = st.builds(Site, st.sampled_from(_STANDARD), call=st.none() | st.integers(0, 9)) | st.builds(
    Site, _TEXT, st.sampled_from(["output", "input", "inputs"]), st.none() | st.integers(0, 9)
)

STEPS = st.none() | st.builds(Steps, st.integers(0, 3), st.none() | st.integers(4, 9), st.booleans())


def arguments(refs: st.SearchStrategy[Ref]) -> st.SearchStrategy[Any]:
    bound = st.none() | st.integers(-9, 9) | refs
    plain = st.none() | _NUMBERS | _TEXT | refs | st.builds(Slice, bound, bound, bound) | st.builds(Dots)
    plain |= st.builds(Dtype, st.sampled_from(sorted(DTYPES)))
    return st.recursive(plain, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)


def later(kind: type[Node], **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Callable[[], Node]]:
    return st.builds(partial, st.just(kind), **parts)


@st.composite
def recipes(draw: Any) -> Callable[[], Graph]:
    """Graphs of any nodes, to be made later (their types are checked at random places); that they run is not asked."""
    worlds = draw(st.lists(st.builds(World, _TEXT, base=st.none() | _TEXT, at=_TEXT), unique_by=lambda w: w.name))
    nodes: list[Callable[[], Node]] = [partial(Constant, ref="c0")]
    for index in range(1, draw(st.integers(1, 10))):
        refs = st.builds(Ref, st.integers(0, index - 1))
        values, names = arguments(refs), st.sampled_from([world.name for world in worlds]) if worlds else st.nothing()
        kinds = [
            later(Read, site=SITES, world=names, at=_TEXT, steps=STEPS),
            later(Write, site=SITES, world=names, value=refs, steps=STEPS),
            later(Skip, site=SITES, world=names, value=refs, steps=STEPS),
            later(Stop, world=names, steps=STEPS),
            later(
                Op,
                name=st.sampled_from(sorted(OPS)),
                args=st.lists(values, max_size=3).map(tuple),
                kwargs=st.lists(st.tuples(_TEXT, values), max_size=2).map(tuple),
                at=_TEXT,
            ),
            later(Call, module=_TEXT, args=st.lists(refs, max_size=2).map(tuple)),
            later(Gradient, of=refs, wrt=refs),
            later(Weight, path=_TEXT),
            later(Input, name=_TEXT, trainable=st.booleans()),
            later(Log, label=_TEXT, value=refs),
            later(Save, name=st.just(f"saved{index}"), value=refs),
        ]
        nodes.append(draw(st.one_of(kinds if worlds else kinds[4:])))
    return lambda: Graph(tuple(worlds), tuple(make() for make in nodes))


@settings(max_examples=30)
@given(recipes())
def test_a_graph_comes_back_equal_with_its_hash_and_its_lines(recipe: Callable[[], Graph]) -> None:
    graph = recipe()
    back = decode(encode(graph))
    assert back == graph
    assert hash(back) == hash(graph)
    assert repr(back) == repr(graph)  # the user's lines, and 1, 1.0 and True, which take no part in ==
    assert encode(back) == encode(graph)


@pytest.mark.parametrize("value", [1, 1.0, True, -0.0, 0.0, math.inf, -math.inf, math.nan, 1j, 1e300, 0.1, None, "1"])
def test_numbers_that_python_takes_for_one_another_are_kept_apart(value: Any) -> None:
    graph = Graph((), (Op(name="full_like", args=(value, (value,))),))
    back = decode(encode(graph))
    assert repr(back) == repr(graph)
    assert back == graph


def test_two_programs_with_nan_in_them_are_equal(model: ip.Model, ids: Any) -> None:
    found = []
    for _ in range(2):
        with model.trace(ids, run=False) as t:
            model.layers[0].output[:, -1] = float("nan")
        found.append(t.graph)
    assert found[0] == found[1] == decode(encode(found[0]))


def test_what_a_block_records_comes_back_and_runs_the_same(model: ip.Model, ids: Any) -> None:
    with model.trace() as t:
        with t.world("clean", ids):
            z = model.layers[1].attn.z[:, -1].clone()
        with t.world("corrupt", ids.flip(1), base="clean"):
            model.layers[1].attn.z[:, -1] = z * 2.0
            loss = model.logits[:, -1].softmax(-1).max(-1).values.sum().save("loss")
    back = decode(encode(t.graph))
    assert back == t.graph
    again = next(model.backend.run_many([back], [t.feed]))
    assert again["loss"].equal(loss)
    assert str(back) == str(t.graph)


def message(*nodes: Any, **changes: Any) -> str:
    return json.dumps({"interpose": "graph", "version": 1, "worlds": [{"name": "a"}], "nodes": nodes, **changes})


_READ = {"node": "read", "site": {"site": ["embed", "", None]}, "world": "a"}


def test_the_text_of_a_graph_is_what_the_documentation_says() -> None:
    read = Read(site=Site("embed"), world="a")
    assert encode(Graph((World("a"),), (read,))) == message(_READ).replace(" ", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("NaN", "it is not JSON"),
        ("[]", "does not say that it is one"),
        ('{"interpose": "scores"}', "does not say that it is one"),
        (message(version=2), "format version 2, and this interpose reads version 1"),
        (message(version=True), "format version True"),
        (message(extra=1), "extra: Extra inputs are not permitted"),
        (message(worlds=None), "worlds: Input should be a valid list"),
        (message(worlds=[{"name": 3}]), r"worlds\[0\].name: Input should be a valid string"),
        (message(worlds=[{"name": "a"}, {"name": "a"}]), "Two worlds have the same name"),
        (message(3), "nodes.0: Input should be a valid dictionary"),
        (message({"node": "apply", "function": "os.system"}), r"nodes\[0\] is of the kind 'apply'. The kinds are read"),
        (message({"node": ["read"]}), "is of the kind"),
        (message({**_READ, "hook": 1}), r"nodes\[0\].hook: Extra inputs are not permitted"),
        (message({"node": "read", "world": "a"}), r"nodes\[0\].site: Field required"),
        (message({**_READ, "site": "embed"}), r"nodes\[0\].site: "),
        (message({**_READ, "world": "b"}), "speaks of the world 'b'; the graph has"),
        (message({**_READ, "site": {"site": ["embed", "__class__", None]}}), "but no '__class__'"),
        (message({**_READ, "site": {"site": ["embed", "", None, 1]}}), "A site has wrong parts"),
        (message({**_READ, "site": {"site": ["embed", "", -1]}}), "there is no call -1"),
        (message({**_READ, "steps": {"steps": [-1, None, False]}}), "there is no step -1"),
        (message({**_READ, "steps": {"steps": [0, None]}}), "A steps has wrong parts"),
        (message({**_READ, "steps": 0}), r"nodes\[0\].steps: "),
        (message({**_READ, "site": {"site": ["layers.0.bogus", "", None]}}), "There is no site named 'layers.0.bogus'"),
        (
            message({**_READ, "site": {"site": ["blocks.0.hook_resid_pre", "", None]}}),
            "by their own names: layers.0.in",
        ),
        (message({"node": "op", "name": "system", "args": [], "kwargs": []}), "the operation 'system'"),
        (message({"node": "op", "name": "neg", "args": [{"ref": [0]}]}), "refers to node 0, which is not above it"),
        (message(_READ, {"node": "op", "name": "neg", "args": [{"ref": [-1]}]}), "refers to node -1"),
        (message(_READ, {"node": "op", "name": "neg", "args": [{"ref": [True]}]}), "A ref has wrong parts"),
        (message(_READ, {"node": "op", "name": "neg", "args": [{"ref": 0}]}), "A ref has a list of its parts, not 0"),
        (message({"node": "op", "name": "neg", "args": [{"object": ["os"]}]}), "no kind of value named 'object'"),
        (message({"node": "op", "name": "neg", "args": [{"tensor": "t0"}]}), "no kind of value named 'tensor'"),
        (message({"node": "op", "name": "neg", "args": [{"list": [1]}]}), "no kind of value named 'list'"),
        (message({"node": "op", "name": "neg", "args": [{"dtype": ["float7"]}]}), "no number type named 'float7'"),
        (message({"node": "op", "name": "neg", "args": [{"float": "1"}]}), "no kind of value named 'float'"),
        (message({"node": "op", "name": "neg", "args": [{"complex": [1, 2]}]}), "each with a decimal point"),
        (message({"node": "op", "name": "neg", "args": [{}]}), "expected a number, text, null, a list"),
        (message({"node": "op", "name": "neg", "args": [2**70]}), "larger than 64 bits"),
        (message({"node": "op", "name": "neg", "args": ["x" * 5000]}), "A text has 5000 characters"),
        (message({"node": "op", "name": "neg", "args": json.loads("[" * 50 + "]" * 50)}), "more than 32 deep"),
        (message({"node": "input", "name": "x", "trainable": 1}), r"trainable: Input should be a valid boolean"),
    ],
    ids=lambda value: "" if isinstance(value, str) and len(value) > 60 else value,
)
def test_what_encode_did_not_write_is_refused(text: str, said: str) -> None:
    with pytest.raises(GraphError, match=said):
        decode(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["embed", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["ref", "slice", "site", "dtype", "dots", "float", "complex"]), inner, max_size=1
        )
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(graphs._KINDS)), st.dictionaries(st.text(max_size=4), _JSON, max_size=2), st.data())
def test_damage_never_raises_anything_else(name: str, extra: dict[str, Any], data: Any) -> None:
    kind = graphs._KINDS[name]
    node = {field.name: data.draw(_JSON) for field in graphs._SENT[kind]} | extra
    for text in (message({"node": name, **node}), message(worlds=[node]), json.dumps(node)):
        try:
            decode(text)
        except GraphError:
            continue


@settings(max_examples=30)
@given(recipes(), st.data())
def test_a_text_with_a_piece_cut_out_never_raises_anything_else(recipe: Callable[[], Graph], data: Any) -> None:
    text = encode(recipe())
    start = data.draw(st.integers(0, len(text)))
    try:
        decode(text[:start] + text[start + data.draw(st.integers(1, 9)) :])
    except GraphError:
        return


def test_what_cannot_travel_is_refused_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GraphError, match=r"mine.py:3: Apply is local only: it cannot be sent or saved"):
        encode(Graph((), (Apply(function=print, at="mine.py:3"),)))
    for value, said in [
        (object(), "A object cannot be sent or saved"),
        ([1], "A list cannot be sent or saved"),
        (2**64, "larger than 64 bits"),
        ("\ud800", "half a character"),
    ]:
        with pytest.raises(GraphError, match=said):
            encode(Graph((), (Op(name="neg", args=(value,)),)))
    deep: Any = 0
    for _ in range(40):
        deep = (deep,)
    with pytest.raises(GraphError, match="more than 32 deep"):
        encode(Graph((), (Op(name="neg", args=deep),)))
    many = Graph((), (Constant(ref="c"),) * 5)
    monkeypatch.setattr(graphs, "NODES", 4)
    with pytest.raises(GraphError, match="A graph of 5 nodes and 0 worlds cannot be sent or saved"):
        encode(many)


def test_too_much_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = encode(Graph((), (Constant(ref="c"),) * 5))
    monkeypatch.setattr(graphs, "LENGTH", 50)
    with pytest.raises(GraphError, match="is not read: the limit is 50"):
        decode(text)
    monkeypatch.undo()
    nodes = json.dumps([{"node": "constant", "ref": "c"}] * (graphs.NODES + 1))
    with pytest.raises(GraphError, match="nodes: List should have at most 200000 items"):
        decode(message().replace('"nodes": []', f'"nodes": {nodes}'))


def test_an_unknown_site_is_answered_with_the_nearest() -> None:
    with pytest.raises(GraphError, match=r"Nearest names: .*layers\[3\].attn.z") as caught:
        decode(message({**_READ, "site": {"site": ["layers.3.attn.zz", "", None]}}))
    assert isinstance(caught.value.__cause__, SiteError)
