"""Which edges a model has, what their sources write, and where cutting them enters."""

from collections.abc import Callable

import pytest
import torch

import interpose as ip
from interpose.errors import SearchError
from interpose.mediators import Edges
from interpose.mediators.edges import all_written, cut_edges, readers, table_of
from interpose.models.stream import StreamGraph

IDS = torch.tensor([[5, 17, 3, 42, 8, 30], [12, 4, 33, 21, 6, 19]])
OTHER = torch.tensor([[5, 17, 9, 42, 8, 31], [12, 4, 33, 22, 6, 20]])
SIZES = {"layers": 2, "heads": 4, "width": 16, "neurons": 24, "vocab": 50, "pad_token_id": 0}
FAMILIES = {
    "gpt2": {},
    "gpt_neox": {},
    "llama": {"kv_heads": 2},
    "gemma3_text": {"kv_heads": 2, "head_width": 6},
    "olmo2": {},
    "mistral": {"kv_heads": 2},
    "qwen2": {"kv_heads": 2},
    "qwen3": {"kv_heads": 2, "head_width": 6},
    "gemma2": {"kv_heads": 2, "head_width": 6},
    "phi3": {},
    "opt": {"word_embed_proj_dim": 10},
    "gptj": {"rotary_dim": 2},
    "bloom": {},
    "falcon": {},
}


@pytest.fixture(scope="module")
def make() -> Callable[..., ip.Model]:
    def model(family: str, **config: int) -> ip.Model:
        torch.manual_seed(0)
        settings = {**SIZES, "bos_token_id": 0, "eos_token_id": 0, **FAMILIES[family], **config}
        if family == "bloom":
            del settings["neurons"]  # always four times its width
        made = ip.build(family, **settings)
        with torch.no_grad():
            for weight in made.network.parameters():
                weight.mul_(6)
        return made

    return model


def test_edges_are_counted_as_in_mib(make: Callable[..., ip.Model]) -> None:
    """Each query head has a query, a key and a value edge from everything before it, also where keys are shared."""
    by_hand = sum(3 * 4 * (1 + layer * 5) + (1 + layer * 5 + 4) for layer in range(2)) + 1 + 2 * 5
    for family in ("gpt2", "llama", "gemma3_text", "olmo2"):
        assert len(Edges().units(make(family))) == by_hand == 110
    assert len(Edges().units(make("gpt_neox"))) == by_hand - 2 * 4  # heads do not feed the MLP beside them
    # The numbers of two real models.
    assert StreamGraph(12, 12).n_edges == 32_491
    assert StreamGraph(30, 9).n_edges == 123_211


def test_grouped_edges_are_counted_once_a_shared_key(make: Callable[..., ip.Model]) -> None:
    model = make("llama")
    units = Edges(grouped=True).units(model)
    assert len(units) == sum(8 * (1 + layer * 5) + (5 + layer * 5) for layer in range(2)) + 11
    assert "input->a1.kv1<v>" in units
    assert "input->a1.h3<q>" in units
    assert "input->a1.h3<k>" not in units


def test_where_no_key_is_shared_grouping_changes_nothing(make: Callable[..., ip.Model]) -> None:
    model = make("gpt2")
    assert Edges(grouped=True).graph(model) == Edges().graph(model)
    assert Edges(grouped=True).graph(make("olmo2")) == Edges().graph(make("olmo2"))


def test_keys_normed_together_cannot_be_told_apart(make: Callable[..., ip.Model]) -> None:
    model = make("olmo2", kv_heads=2)
    with pytest.raises(SearchError) as failure:
        Edges().units(model)
    assert str(failure.value) == (
        "This family norms all keys together, so query heads that share a key cannot be cut apart. "
        "Write Edges(grouped=True)."
    )
    assert len(Edges(grouped=True).units(model)) > 0


def test_keys_at_fixed_places_of_one_projection_cannot_be_told_apart(make: Callable[..., ip.Model]) -> None:
    model = make("phi3", kv_heads=2)
    with pytest.raises(SearchError) as failure:
        Edges().units(model)
    assert str(failure.value) == (
        "This family cuts keys and values out of one projection at fixed places, so query heads that share a key "
        "cannot be cut apart. Write Edges(grouped=True)."
    )
    assert len(Edges(grouped=True).units(model)) > 0


@pytest.mark.parametrize(("family", "config"), [("bert", {}), ("opt", {"do_layer_norm_before": False})])
def test_a_stream_that_is_normed_itself_has_no_edges(family: str, config: dict[str, bool]) -> None:
    model = ip.build(family, **SIZES, **config)
    with pytest.raises(SearchError) as failure:
        Edges().units(model)
    assert str(failure.value) == (
        "This model norms the stream itself after each addition (post-norm), so what a part reads is no sum of what "
        "others wrote, and there are no edges to cut. Search over other mediators, such as Heads()."
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_sources_write_adds_up_to_the_stream(family: str, make: Callable[..., ip.Model]) -> None:
    """Up to what no source writes and no prompt changes: learned positions and biases."""
    model = make(family)
    rests = []
    for ids in (IDS, OTHER):
        with model.trace(ids):
            wrote = all_written(model, -6).save()
            stream = model.layers[-1].output.save()
        assert wrote.shape == (Edges().graph(model).n_sources, *stream.shape)
        rests.append(stream - wrote.sum(0))
    assert (rests[0] - rests[1]).abs().max() < 1e-5
    if family not in ("gpt2", "gpt_neox", "opt"):
        assert rests[0].abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_readers_are_the_destinations_in_order(family: str, make: Callable[..., ip.Model]) -> None:
    model = make(family)
    graph = Edges().graph(model)
    rows = [row for reader in readers(model, graph) for row in range(reader.rows.start, reader.rows.stop)]
    assert rows == list(range(graph.n_destinations))
    for reader in readers(model, graph):
        places = graph.inputs[reader.rows]
        assert {place.upstream for place in places} == {reader.upstream}
        assert {place.layer for place in places} == {reader.layer}


def test_a_table_has_one_row_a_destination_and_zero_where_there_is_no_edge() -> None:
    graph = StreamGraph(2, 3)
    table = table_of(torch.arange(1.0, graph.n_edges + 1), graph)
    assert table.shape == (graph.n_destinations, graph.n_sources)
    assert int((table != 0).sum()) == graph.n_edges
    for number in (0, 5, 17, graph.n_edges - 1):
        source, destination = graph.edge(number)
        assert table[destination, source] == number + 1


def test_an_edge_can_be_cut_in_part(make: Callable[..., ip.Model]) -> None:
    """Halfway into the logits, which are linear here: the behaviour is halfway too."""
    model = make("llama")
    model.network.model.norm = torch.nn.Identity()
    model = ip.wrap(model.network)
    graph = Edges().graph(model)

    def run(share: float) -> torch.Tensor:
        values = torch.zeros(graph.n_edges)
        values[graph.edges.number("m1->logits")] = share
        with model.trace() as t:
            with t.world("corrupt", OTHER):
                corrupt = all_written(model, -6)
            with t.world("clean", IDS):
                cut_edges(model, graph, corrupt, t.input("cut", table_of(values, graph)), -6)
                logits = model.logits.save()
        return logits

    whole, half, none = run(1.0), run(0.5), run(0.0)
    assert (half - (whole + none) / 2).abs().max() < 1e-5
    assert (whole - none).abs().max() > 1e-3


def test_only_positions_from_the_first_difference_on_are_touched(make: Callable[..., ip.Model]) -> None:
    model = make("gpt2")
    graph = Edges().graph(model)
    with torch.no_grad():
        stock = model.network(IDS).logits
    with model.trace() as t:
        with t.world("corrupt", OTHER):
            corrupt = all_written(model, -4)
        with t.world("clean", IDS):
            cut = t.input("cut", table_of(torch.ones(graph.n_edges), graph))
            cut_edges(model, graph, corrupt, cut, -4)
            logits = model.logits.save()
    assert (logits[:, :2] - stock[:, :2]).abs().max() < 1e-5
    with torch.no_grad():
        assert (logits[:, 2:] - model.network(OTHER).logits[:, 2:]).abs().max() < 1e-5


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_edges_of_a_model_of_images_are_cut_as_any(share: float) -> None:
    """With no edge cut the class is that of the clean image, with all that of the corrupt one."""
    torch.manual_seed(0)
    sizes = {name: SIZES[name] for name in ("layers", "heads", "width", "neurons")}
    model = ip.build("vit", **sizes, vocab=7, image_size=8, patch_size=4, num_channels=2)
    images = torch.randn(2, 3, 2, 8, 8)
    graph = Edges().graph(model)
    assert graph.n_edges == 110
    with model.trace() as t:
        with t.world("corrupt", images[1]):
            corrupt = all_written(model, -5)
        with t.world("clean", images[0]):
            cut_edges(model, graph, corrupt, t.input("cut", table_of(torch.full((110,), share), graph)), -5)
            logits = model.logits.save()
    with torch.no_grad():
        found = [model.network(image).logits for image in images]
    assert (logits - found[int(share)]).abs().max() < 1e-5
    assert (found[0] - found[1]).abs().min() > 1e-4
