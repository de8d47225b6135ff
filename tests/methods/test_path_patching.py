"""Path patching against edges, against two runs under hooks, and on numbers worked out by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import interpose as ip
from interpose.errors import SearchError, SiteError
from interpose.mediators import Edges, Heads, Nodes, Paths
from interpose.methods import EAP, ActivationPatching, PathPatching
from interpose.search.edge_patching import EdgePatching
from interpose.search.progress import watching
from interpose.tasks.base import Pairs

Make = Callable[[str], ip.Model]
HEADS, WIDTH = 2, 12
NAMES = {
    "gpt2": ("transformer.wte", "transformer.h", "attn.c_proj", "transformer.ln_f"),
    "neox": ("gpt_neox.embed_in", "gpt_neox.layers", "attention.dense", "gpt_neox.final_layer_norm"),
    "llama": ("model.embed_tokens", "model.layers", "self_attn.o_proj", "model.norm"),
}


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("variant", ["gpt2", "neox", "llama", "gemma3"])
def test_a_path_to_one_receiver_is_an_edge(variant: str, make: Make, pairs: Pairs) -> None:
    model = make(variant)
    edges = ActivationPatching().score(model, pairs, Edges())
    for receiver in ("a0.h1<v>", "a1.h0<q>", "a1.h1<k>", "m1", "logits"):
        paths = PathPatching(batch_size=2).score(model, pairs, Paths(receivers=(receiver,)))
        assert paths.values.tolist() == pytest.approx([edges[unit] for unit in paths.units], abs=1e-5)
        assert paths.values.abs().max() > 1e-3


class Hooks:
    """The stock network with what its parts give replaced: heads' mixes, MLPs, embedding, what receivers read."""

    def __init__(self, variant: str, model: ip.Model, pairs: Pairs) -> None:
        self.variant, self.network, self.pairs = variant, model.network, pairs
        self.embed, self.layers, self.out, self.norm = NAMES[variant]

    def run(self, batch: Any, change: Callable[[str, Tensor], Tensor | None]) -> Tensor:
        """The behaviour, when each named value becomes what `change` gives."""
        handles = []

        def visit(path: str, name: str, side: str) -> None:
            module: Any = self.network.get_submodule(path)
            if side == "in":
                handles.append(module.register_forward_pre_hook(lambda _, args: self._one(change, name, args[0])))
            else:
                handles.append(module.register_forward_hook(lambda _, __, output: change(name, output)))

        visit(self.embed, "input", "out")
        visit(self.norm, "logits", "out")
        for number in range(2):
            layer = f"{self.layers}.{number}"
            visit(f"{layer}.{self.out}", f"z{number}", "in")
            visit(f"{layer}.mlp", f"m{number}", "in")
            visit(f"{layer}.mlp", f"wrote{number}", "out")
            for path, kind in self._projections():
                visit(f"{layer}.{path}", f"{kind}{number}", "out")
        with torch.no_grad():
            logits = self.network(**batch.kwargs).logits[:, -1]
        for handle in handles:
            handle.remove()
        rows = torch.arange(len(self.pairs))
        return logits[rows, self.pairs.answers] - logits[rows, self.pairs.wrong]

    @staticmethod
    def _one(change: Any, name: str, value: Tensor) -> Any:
        new = change(name, value)
        return None if new is None else (new,)

    def _projections(self) -> list[tuple[str, str]]:
        if self.variant == "llama":
            return [("self_attn.q_proj", "q")]
        return [({"gpt2": "attn.c_attn", "neox": "attention.query_key_value"}[self.variant], "qkv")]

    def receiver(self, name: str) -> tuple[str, Any]:
        """Which named value a receiver reads, and which of its last entries."""
        if name.startswith("m") or name == "logits":
            return name, slice(None)
        layer, head, kind = int(name[1]), int(name[4]), "qkv".index(name[-2])
        if self.variant == "llama":
            assert kind == 0
            return f"q{layer}", slice(head * WIDTH, (head + 1) * WIDTH)
        block = kind * HEADS + head if self.variant == "gpt2" else head * 3 + kind
        return f"qkv{layer}", slice(block * WIDTH, (block + 1) * WIDTH)

    def score(self, sender: str, receivers: tuple[str, ...], through: bool) -> float:
        """Wang et al.'s two runs: what the receivers read with all else frozen, then the clean run with that."""
        corrupt, clean, read = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        self.run(self.pairs.corrupt_batch(), lambda name, value: corrupt.update({name: value.clone()}))
        before = self.run(self.pairs.clean_batch(), lambda name, value: clean.update({name: value.clone()}))

        def frozen(name: str, value: Tensor) -> Tensor | None:
            read[name] = value.clone()
            if name == "input" and sender == "input":
                return corrupt[name]
            if name.startswith("wrote"):
                own = sender == f"m{name[-1]}"
                return corrupt[name] if own else None if through else clean[name]
            if name.startswith("z"):
                new = clean[name].clone()
                if sender.startswith(f"a{name[-1]}"):
                    part = slice(int(sender[-1]) * WIDTH, (int(sender[-1]) + 1) * WIDTH)
                    new[..., part] = corrupt[name][..., part]
                return new
            return None

        self.run(self.pairs.clean_batch(), frozen)
        ends = [self.receiver(name) for name in receivers]

        def received(name: str, value: Tensor) -> Tensor | None:
            new = value.clone()
            for site, part in ends:
                if site == name:
                    new[..., part] = read[name][..., part]
            return new

        return float((before - self.run(self.pairs.clean_batch(), received)).mean())


@pytest.mark.parametrize("pairs", ["ragged"], indirect=True)
@pytest.mark.parametrize("through", [False, True], ids=["direct", "through"])
@pytest.mark.parametrize("variant", list(NAMES))
def test_several_receivers_are_set_to_what_they_read_with_all_else_frozen(
    variant: str, through: bool, make: Make, pairs: Pairs
) -> None:
    model, hooks = make(variant), Hooks(variant, make(variant), pairs)
    more = () if variant == "llama" else ("a1.h0<k>", "a0.h1<v>")
    for receivers in (("a1.h0<q>", "a1.h1<q>", "m1", *more), ("m0", "a1.h0<q>", "logits")):
        mediator = Paths(receivers=receivers, through_mlps=through)
        scores = PathPatching(batch_size=2).score(model, pairs, mediator)
        expected = [hooks.score(unit.partition("->")[0], receivers, through) for unit in scores.units]
        assert scores.values.tolist() == pytest.approx(expected, abs=3e-5)
        assert max(map(abs, expected)) > 1e-3


def test_paths_through_mlps_differ_from_direct_ones(make: Make, even: Pairs) -> None:
    model = make("llama")
    direct, through = (PathPatching().score(model, even, Paths(through_mlps=way)) for way in (False, True))
    assert (direct.values - through.values).abs().max() > 1e-3
    assert direct["m1->logits"] == pytest.approx(through["m1->logits"], abs=1e-5)  # no MLP lies behind the last


def test_the_embedding_goes_to_the_logits_directly_or_through_the_neuron(one_neuron: Any, neuron: Any) -> None:
    model, pairs = one_neuron("relu")
    clean, corrupt, direct = neuron
    assert PathPatching().score(model, pairs, Paths())["input->logits"] == pytest.approx(direct)
    assert PathPatching().score(model, pairs, Paths())["m0->logits"] == pytest.approx(clean - corrupt)
    whole = ActivationPatching().score(model, pairs, Nodes())["input"]
    assert whole == pytest.approx(direct + clean - corrupt)
    assert PathPatching().score(model, pairs, Paths(through_mlps=True))["input->logits"] == pytest.approx(whole)


def test_receivers_do_not_change_one_another_as_cut_edges_do(two_mlps: Any) -> None:
    model, pairs = two_mlps(0.5)  # clean: 2 (1 + 4 * 1.5) = 14
    paths = PathPatching().score(model, pairs, Paths(receivers=("m0", "m1")))
    assert paths["input->m0+m1"] == pytest.approx(14 - 2 * 4 * 0.5)  # m1 reads x = 0, and a = 1 as before
    patching = EdgePatching(model, pairs)
    mask = torch.ones(1, patching.graph.n_edges, dtype=torch.bool)
    mask[0, [patching.graph.edges.number(name) for name in ("input->m0", "input->m1")]] = False
    assert float(next(patching(mask))) == pytest.approx(0.0)  # m1 reads a = 0 too


def test_units_are_the_senders_upstream_of_a_receiver(make: Make) -> None:
    model = make("gpt2")
    assert Paths(receivers=("a1.h0<q>",)).units(model) == tuple(
        f"{sender}->a1.h0<q>" for sender in ("input", "a0.h0", "a0.h1", "m0")
    )
    assert Paths(receivers=("logits", "m0")).units(model)[-1] == "m1->m0+logits"
    grouped = Paths(receivers=("a1.kv0<v>",), grouped=True)
    assert grouped.units(make("llama"))[1] == "a0.h0->a1.kv0<v>"


def test_grouped_receivers_are_edges_too(make: Make, even: Pairs) -> None:
    model = make("llama")
    edges = ActivationPatching().score(model, even, Edges(grouped=True))
    paths = PathPatching().score(model, even, Paths(receivers=("a1.kv0<k>",), grouped=True))
    assert paths.values.tolist() == pytest.approx([edges[unit] for unit in paths.units], abs=1e-5)


def test_a_sweep_shares_the_unchanged_run(make: Make, even: Pairs, passes: list[int]) -> None:
    PathPatching().score(make("llama"), even, Paths())
    assert passes == [7]
    del passes[:]
    PathPatching().score(make("llama"), even, Paths(through_mlps=True))
    assert sum(passes) == 14
    assert len(passes) <= 4


def test_progress_is_told_for_every_path(make: Make, even: Pairs) -> None:
    told: list[tuple[str, int, int]] = []
    with watching(lambda *progress: told.append(progress)):
        PathPatching().score(make("llama"), even, Paths(receivers=("m0",)))
    assert told[0] == ("patching paths", 0, 4)
    assert told[-1] == ("patching paths", 4, 4)


def test_receivers_that_are_not_there_are_refused(make: Make, even: Pairs) -> None:
    with pytest.raises(SiteError, match="This model has no destination 'a7.h0<q>'. The nearest are: "):
        PathPatching().score(make("gpt2"), even, Paths(receivers=("a7.h0<q>",)))
    with pytest.raises(SearchError, match="names no receiver. Name each that the path leads to once"):
        PathPatching().score(make("gpt2"), even, Paths(receivers=()))
    with pytest.raises(SearchError, match="names a receiver twice. Name each that the path leads to once"):
        PathPatching().score(make("gpt2"), even, Paths(receivers=("m0", "m0")))


def test_other_units_and_other_methods_are_refused_with_the_way_out(make: Make, even: Pairs) -> None:
    with pytest.raises(SearchError) as failure:
        PathPatching().score(make("gpt2"), even, Heads())
    assert str(failure.value) == (
        "PathPatching cannot score Heads(). It patches Paths(); for other units use ActivationPatching()."
    )
    with pytest.raises(SearchError) as failure:
        EAP().score(make("gpt2"), even, Paths())
    assert str(failure.value) == (
        "EAP cannot score Paths(receivers=('logits',), through_mlps=False, grouped=False). Use PathPatching(), which "
        "is made for them."
    )


def test_a_family_whose_shared_keys_cannot_be_split_takes_them_together() -> None:
    model = ip.build("olmo2", layers=1, heads=4, kv_heads=2, width=16, neurons=8, vocab=20, pad_token_id=0)
    with pytest.raises(SearchError) as failure:
        Paths().units(model)
    assert str(failure.value) == (
        "This family norms all keys together, so query heads that share a key are one receiver. Write "
        "Paths(receivers=..., grouped=True), with names such as 'a0.kv0<k>'."
    )
    assert Paths(grouped=True).units(model)[0] == "input->logits"
