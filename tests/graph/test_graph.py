"""Graphs as values: frozen, hashed, compared without line numbers, checked when made, printed as code."""

import dataclasses
import subprocess
import sys

import pytest
import torch

import interpose as ip
from interpose.errors import GraphError, SiteError
from interpose.graph import Graph, Site, World
from interpose.graph.arguments import Dots, Dtype, Ref, Slice
from interpose.graph.nodes import Op, Read, Save, Write, references
from interpose.graph.sites import LAYER_SITES, MODEL_SITES, NNTERP, TRANSFORMER_LENS, standard

H = Site("layers.1.output")


def graph(*nodes: object) -> Graph:
    return Graph((World("main"),), nodes)  # type: ignore[arg-type]


def test_a_graph_is_frozen_and_hashed() -> None:
    made = graph(Read(site=H, world="main"), Save(name="h", value=Ref(0)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.nodes = ()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.nodes[0].world = "other"  # type: ignore[misc]
    assert {made: 1}[graph(Read(site=H, world="main"), Save(name="h", value=Ref(0)))] == 1
    assert made.structure == hash(made)


def test_line_numbers_take_no_part_in_comparison() -> None:
    model = ip.wrap(torch.nn.Identity())
    graphs = []
    for _ in range(2):
        with model.trace(torch.ones(2), run=False) as t:
            (model.output + 1).save()
        graphs.append(t.graph)
    with model.trace(torch.zeros(3), run=False) as t:
        (
            model.output  # on other lines
            + 1
        ).save()
    graphs.append(t.graph)
    assert len(set(graphs)) == 1
    lines = {made.nodes[0].at for made in graphs}
    assert len(lines) == 2
    assert all(line.startswith(f"{__file__}:") for line in lines)
    assert graphs[0].worlds[0].at.startswith(f"{__file__}:")


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0.0, -0.0), (2, 3), ("a", "b"), (Slice(1), Slice(True))]
)
def test_numbers_of_another_kind_make_another_graph(one: object, other: object) -> None:
    first, second = (
        graph(Read(site=H, world="main"), Op(name="add", args=(Ref(0), (value,)))) for value in (one, other)
    )
    assert first != second
    assert first == graph(Read(site=H, world="main"), Op(name="add", args=(Ref(0), (one,))))


def test_what_cannot_be_meant_is_refused_when_it_is_made() -> None:
    with pytest.raises(GraphError, match="refers to node 0, which is not above it"):
        graph(Save(name="h", value=Ref(0)))
    with pytest.raises(GraphError, match=r"the world 'other'; the graph has \['main'\]"):
        graph(Read(site=H, world="other"))
    with pytest.raises(GraphError, match="the operation '__import__', which a graph cannot carry"):
        graph(Op(name="__import__", args=("os",)))
    with pytest.raises(GraphError, match="Two values are saved as 'h'"):
        graph(Read(site=H, world="main"), Save(name="h", value=Ref(0)), Save(name="h", value=Ref(0)))
    with pytest.raises(GraphError, match="Two worlds have the same name"):
        Graph((World("a"), World("a")), ())
    with pytest.raises(GraphError, match="refers to node 5"):
        graph(Read(site=H, world="main"), Op(name="getitem", args=(Ref(0), (Slice(None, Ref(5)),))))


def test_references_are_found_wherever_they_stand() -> None:
    node = Op(
        name="index_put", args=(Ref(3), (Slice(Ref(1), None, Ref(2)), Dots()), ((Ref(0),),)), kwargs=(("x", Ref(4)),)
    )
    assert [ref.index for ref in references(node)] == [3, 1, 2, 0, 4]


def test_a_graph_prints_as_the_code_that_made_it() -> None:
    torch.manual_seed(0)
    model = ip.build("gpt2", layers=2, width=8, heads=2, vocab=11, bos_token_id=0, eos_token_id=0)
    ids = torch.tensor([[1, 2, 3]])
    with model.trace(run=False) as t:
        with t.world("clean", ids):
            z = model.layers[1].attn.z[:, :, 1]
        with t.world("corrupt", ids, base="clean"):
            model.layers[1].attn.z[:, :, 1] = z
            model.layers[0].mlp.output[..., -1:] *= 0.5
            h = model.layers[0].output
            number = (model.call.unembed(model.norm.output)[:, -1, 4] - 1).sum(dim=0)
            ip.grad(number, h).save("slope")
            model.module("transformer.h.0").output[0].to(torch.float64).save("raw")
            torch.cat([h, h + torch.ones(8)], dim=-1).save("both")
    assert str(t.graph).splitlines() == [
        'world("clean"):',
        "    v0 = layers[1].attn.z",
        "    v1 = v0[:, :, 1]",
        'world("corrupt", base="clean"):',
        "    v2 = layers[1].attn.z",
        "    v3 = v2 with [:, :, 1] = v1",
        "    layers[1].attn.z = v3",
        "    v5 = layers[0].mlp.output",
        "    v6 = v5[..., -1:]",
        "    v7 = v6 * 0.5",
        "    v8 = v5 with [..., -1:] = v7",
        "    layers[0].mlp.output = v8",
        "    v10 = layers[0].output",
        "    v11 = norm.output",
        '    v12 = call.module("lm_head", v11)',
        "    v13 = v12[:, -1, 4]",
        "    v14 = v13 - 1",
        "    v15 = sum(v14, dim=0)",
        "    v16 = grad(v15, v10)",
        '    v16.save("slope")',
        '    v18 = module("transformer.h.0").output',
        "    v19 = v18[0]",
        "    v20 = to(v19, float64)",
        '    v20.save("raw")',
        "    v22 = constant(c0)",
        "    v23 = v10 + v22",
        "    v24 = cat([v10, v23], dim=-1)",
        '    v24.save("both")',
    ]
    assert str(graph(Read(site=H, world="main"), Op(name="to", args=(Ref(0), Dtype("bool"))))).endswith("to(v0, bool)")


def test_names_of_other_libraries_mean_our_sites() -> None:
    for theirs, ours in TRANSFORMER_LENS.items():
        assert standard(f"blocks.3.{theirs}") == Site(f"layers.3.{ours}")
    for theirs, ours in NNTERP.items():
        assert standard(f"{theirs}[3]") == Site(f"layers.3.{ours}")
    for name in MODEL_SITES:
        assert standard(name) == Site(name)
    for name in LAYER_SITES:
        site = standard(f"layers[12].{name}")
        assert (site.layer, site.local, str(site)) == (12, name, f"layers[12].{name}")
        assert site.axes == tuple(LAYER_SITES[name].split())
    assert standard("ln_final.hook_normalized") == Site("norm.output")


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("layers.3.attn.pattrn", r"Nearest names: layers\[3\]\.attn\.pattern"),
        ("blocks.2.hook_resid_pst", r"layers\[2\]\.output \(elsewhere called hook_resid_post\)"),
        ("logit", "logits"),
        ("qqqqqq", "Sites are: embed, norm.output, logits, layers"),
    ],
)
def test_a_wrong_name_lists_the_nearest(wrong: str, advice: str) -> None:
    with pytest.raises(SiteError, match=f"There is no site named '{wrong}'. .*{advice}"):
        standard(wrong)


def test_a_modules_site_prints_as_it_is_written() -> None:
    assert str(Site("encoder.block.3", "output", 2)) == 'module("encoder.block.3").call(2).output'
    assert Site("layers.1.output", "output").layer is None
    assert Site("layers.1.output", "output").axes is None


def test_a_write_and_a_world_are_plain_data() -> None:
    node = Write(site=H, world="main", value=Ref(0))
    assert node == dataclasses.replace(node, at="elsewhere:1")
    assert dataclasses.asdict(World("a", at="x:1")) == {"name": "a", "base": None, "at": "x:1"}


def test_describing_needs_no_torch() -> None:
    code = "import sys, interpose.graph.show, interpose.models, interpose.discovery; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = code.replace("import sys,", "import sys, numpy,")  # the check can fail
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1
