"""Prompts of unequal length: padded on the left; -1 is the last token, 0 the first real one."""

from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import GraphError, ShapeError, TraceError

PROMPTS = ["the cat sat", "a longer prompt about another animal", "one more of middle length"]
LENGTHS = (3, 6, 5)
SITES = ["layers.1.output", "layers.1.attn.z", "layers.1.attn.q", "layers.1.attn.query", "layers.1.attn.key", "logits"]


def alone(model: ip.Model, site: str) -> list[torch.Tensor]:
    """The site of each prompt run by itself, without its batch axis."""
    found = []
    for prompt in PROMPTS:
        with model.trace(prompt):
            found.append(model.site(site).save())
    return [value[0] for value in found]


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5 * max(1.0, float(b.abs().max())))


def test_prompts_are_padded_on_the_left_with_their_positions(model: ip.Model) -> None:
    batch = model.tokens(PROMPTS).batch
    assert batch.kwargs["input_ids"].shape == (3, 6)
    assert batch.kwargs["attention_mask"].tolist()[0] == [0, 0, 0, 1, 1, 1]
    assert batch.kwargs["position_ids"].tolist()[0] == [0, 0, 0, 0, 1, 2]
    assert batch.padding.tolist() == [3, 0, 1]
    assert model.tokens("the cat sat").ids.shape == (1, 3)


def test_a_padded_batch_gives_the_logits_of_each_prompt_alone(model: ip.Model) -> None:
    with model.trace(PROMPTS):
        last, whole = model.logits[:, -1].save(), model.logits.save()
    for row, logits in enumerate(alone(model, "logits")):
        assert near(last[row], logits[-1])
        assert near(whole[row, -LENGTHS[row] :], logits)


@pytest.mark.parametrize("site", SITES)
def test_a_position_is_the_same_token_in_every_row(model: ip.Model, site: str) -> None:
    axis = 1 if site.endswith(("query", "key")) else 0
    rows = alone(model, site)
    before = (slice(None),) * axis
    with model.trace(PROMPTS):
        h = model.site(site)
        third = h[(slice(None), *before, 2)].save()
        two = h[(slice(None), *before, slice(1, 3))].save()
        some = h[(slice(None), *before, [2, 0])].save()
        last = h[(slice(None), *before, -1)].save()
        ends = h[(slice(None), *before, slice(-2, None))].save()
        one_row = h[(1, *before, 4)].save()
        promised = [value.shape for value in (third, two, some, last, ends, one_row)]
    assert [value.shape for value in (third, two, some, last, ends, one_row)] == promised
    for row, value in enumerate(rows):
        assert near(third[row], value[(*before, 2)])
        assert near(two[row], value[(*before, slice(1, 3))])
        assert near(some[row], value[(*before, [2, 0])])
        assert near(last[row], value[(*before, -1)])
        assert near(ends[row], value[(*before, slice(-2, None))])
    assert near(one_row, rows[1][(*before, 4)])


def test_further_axes_are_indexed_as_in_torch(model: ip.Model) -> None:
    rows = alone(model, "layers.1.attn.z")
    with model.trace(PROMPTS):
        z = model.layers[1].attn.z
        head = z[:, 2, 3].save()
        cut = z[:, 1:3, :, 2].save()
        several = z[:, 1:3, [0, 2]].save()
        dots = z[:, 2, ..., 1:4].save()
        paired = z[[0, 1], [2, 1]].save()
        new = z[:, None, 0].save()
    for row, value in enumerate(rows):
        assert near(head[row], value[2, 3])
        assert near(cut[row], value[1:3, :, 2])
        assert near(several[row], value[1:3, [0, 2]])
        assert near(dots[row], value[2, ..., 1:4])
        assert near(new[row, 0], value[0])
    assert near(paired[0], rows[0][2])
    assert near(paired[1], rows[1][1])


@pytest.mark.parametrize("form", ["number", "slice", "list", "augmented", "view"])
def test_a_position_is_written_in_every_row_at_its_own_column(model: ip.Model, form: str) -> None:
    def change(h: Any) -> None:
        if form == "number":
            h[:, 1] = 0.5
        elif form == "slice":
            h[:, 0:2, :3] = torch.tensor([1.0, 2.0, 3.0])
        elif form == "list":
            h[:, [0, 2]] = -1.0
        elif form == "augmented":
            h[:, 1] += 2
        else:
            part = h[:, 1:3]
            part[:, 0] *= 3
            part -= 1

    singles = []
    for prompt in PROMPTS:
        with model.trace(prompt):
            change(model.layers[0].output)
            singles.append((model.layers[0].output.save(), model.logits[:, -1].save()))
    with model.trace(PROMPTS):
        change(model.layers[0].output)
        stream, last = model.layers[0].output.save(), model.logits[:, -1].save()
    for row, (alone_stream, alone_last) in enumerate(singles):
        assert near(stream[row, -LENGTHS[row] :], alone_stream[0])
        assert near(last[row], alone_last[0])


def test_what_would_differ_in_length_by_row_is_refused(model: ip.Model) -> None:
    for index in ((slice(None), slice(2, None)), (slice(None), slice(1, -1))):
        with pytest.raises(TraceError, match=rf"^{__file__}:\d+: .*different length in each row"), model.trace(PROMPTS):
            _ = model.layers[0].output[index]
    with pytest.raises(TraceError, match="count all positions from one end"), model.trace(PROMPTS):
        _ = model.layers[0].output[:, [0, -1]]
    with pytest.raises(TraceError, match=r"use a mask of shape \[batch, position\]"), model.trace(PROMPTS):
        _ = model.layers[0].output[:, torch.tensor([True] * 6)]
    with pytest.raises(TraceError, match="is indexed by positions from the end"), model.trace(PROMPTS):
        _ = model.layers[0].attn.pattern[:, :, 2]
    with pytest.raises(ShapeError, match="position 4 was asked for, and prompt 0 of the batch has 3 tokens"):  # noqa: SIM117
        with model.trace(PROMPTS):
            _ = model.layers[0].output[:, 4]
    with model.trace(PROMPTS):
        whole = model.layers[0].output[:, :].save()
        from_end = model.layers[0].attn.pattern[:, :, -1].save()
        but_last = model.logits[:, :-1].save()
    assert whole.shape[1] == 6
    assert from_end.shape == (3, 4, 6)
    assert but_last.shape[1] == 5


def test_a_mask_over_rows_and_positions_is_taken_as_it_is(model: ip.Model) -> None:
    mask = model.tokens(PROMPTS).mask
    with model.trace(PROMPTS):
        tokens = model.layers[1].output[mask].save()
        model.layers[1].output[mask] = 0
        after = model.layers[2].input.save()
    rows = alone(model, "layers.1.output")
    assert near(tokens, torch.cat(rows))
    assert float(after[mask].abs().max()) == 0


def test_right_padding_is_refused_where_a_position_is_named(model: ip.Model) -> None:
    ids, mask = torch.tensor([[5, 6, 7, 0], [5, 6, 7, 8]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    with pytest.raises(TraceError, match="padded on the right"), model.trace(ids, attention_mask=mask):
        _ = model.logits[:, -1]
    with model.trace(ids, attention_mask=mask):
        logits = model.logits.save()
    assert logits.shape == (2, 4, 50)


def test_a_hole_in_the_mask_is_no_padding(model: ip.Model) -> None:
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[1, 0, 1, 1]])
    with model.trace(ids, attention_mask=mask):
        third, whole = model.layers[0].output[:, 2].save(), model.layers[0].output.save()
    assert torch.equal(third, whole[:, 2])


@pytest.mark.parametrize("given", ["mapping", "batch", "keyword", "one row"])
def test_tokens_are_given_in_several_ways(model: ip.Model, given: str) -> None:
    batch = model.tokens(PROMPTS).batch
    ids, mask = batch.kwargs["input_ids"], batch.kwargs["attention_mask"]
    with model.trace(PROMPTS):
        expected = model.logits.save()
    block = {
        "mapping": lambda: model.trace({"input_ids": ids, "attention_mask": mask}),
        "batch": lambda: model.trace(batch),
        "keyword": lambda: model.trace(input_ids=ids, attention_mask=mask.bool()),
        "one row": lambda: model.trace(ids[1]),
    }[given]
    with block():
        logits = model.logits.save()
    assert near(logits, expected[1:2] if given == "one row" else expected)


def test_wrong_inputs_say_what_a_language_model_takes(model: ip.Model, gpt2: ip.Model) -> None:
    for wrong in (torch.ones(2, 3), 5, [1, 2, 3], torch.ones(2, 3, 4, dtype=torch.long)):
        with pytest.raises(TraceError, match=r"takes a prompt, a list of prompts, or token ids .*it was given a"):
            model.trace(wrong)
    with pytest.raises(TraceError, match="there is no prompt"):
        model.tokens([])
    with pytest.raises(TraceError, match="an empty prompt has no tokens"):
        model.trace(["a text", ""])
    with pytest.raises(TraceError, match="gpt2 has no tokenizer, so it cannot read text"):
        gpt2.trace("a text")
    with pytest.raises(TraceError, match=r"output_hidden_states makes transformers put hooks.*layers\[i\]\.output"):
        model.trace("a text", output_hidden_states=True)


def test_embeddings_can_be_given_instead_of_tokens(model: ip.Model, ids: torch.Tensor) -> None:
    embedded = model.network.get_input_embeddings()(ids).detach()
    with model.trace(inputs_embeds=embedded):
        logits = model.logits.save()
        assert model.layers[0].output.shape == (2, 7, 24)
    assert torch.equal(logits, model.network(ids, use_cache=False).logits)
    with model.trace(ids, logits_to_keep=1):
        assert model.logits.shape == (2, 1, 50)
        last = model.logits.save()
    assert near(last, logits[:, -1:])


def test_an_index_of_an_index_counts_from_each_prompts_own_first_token(model: ip.Model) -> None:
    rows = alone(model, "layers.1.output")
    with model.trace(PROMPTS):
        stream = model.layers[1].output
        one = stream[0]
        found = one[0].save(), one[:2].save(), one[[1, 0]].save()
        others = stream[1:][:, 2].save()
        number = stream[..., 5][:, 0].save()
        own = stream[:, -3:][:, 0].save()  # the first of the last three
    assert near(found[0], rows[0][0])
    assert near(found[1], rows[0][:2])
    assert near(found[2], rows[0][[1, 0]])
    assert near(others, torch.stack([rows[1][2], rows[2][2]]))
    assert near(number, torch.stack([row[0, 5] for row in rows]))
    assert near(own, torch.stack([row[-3] for row in rows]))
    with pytest.raises(ShapeError, match=r"position 3 was asked for, and prompt 0 of the batch has 3 tokens"):  # noqa: SIM117
        with model.trace(PROMPTS):
            model.layers[1].output[0][3].save()


def test_a_write_to_an_index_of_an_index_is_at_the_prompts_own_token(model: ip.Model) -> None:
    with model.trace(PROMPTS):
        row = model.layers[1].output[2]
        row[0] = 7.0
        changed = model.layers[1].output.save()
        model.layers[1].output[1:][:, 1] += 2.0
        again = model.layers[1].output.save()
    with model.trace(PROMPTS):
        stream = model.layers[1].output.save()
    wanted = stream.clone()
    wanted[2, 1] = 7.0
    assert torch.equal(changed, wanted)
    wanted[1, 1] += 2.0
    wanted[2, 2] += 2.0
    assert torch.equal(again, wanted)


def test_a_graph_that_counts_from_the_start_is_not_replayed_on_prompts_padded_otherwise(model: ip.Model) -> None:
    other, even = [PROMPTS[1], PROMPTS[0], PROMPTS[2]], ["a b c", "d e f", "g h i"]

    def replayed(recorded: list[str], given: list[str], where: Any) -> torch.Tensor:
        with model.trace(recorded, run=False) as t:
            model.layers[1].output[where].save("found")
        return next(iter(model.backend.run_many([t.graph], [t.feed.with_({"main": model.batch(given)})])))["found"]

    for recorded, given in ((PROMPTS, other), (PROMPTS, even), (even, PROMPTS)):
        with pytest.raises(GraphError, match=rf"^{__file__}:\d+: this graph names positions of layers\[1\]\.output"):
            replayed(recorded, given, (slice(None), 0))
    for given, where in ((other, (slice(None), -1)), (even[:2] + PROMPTS[:1], (slice(None), slice(-2, None)))):
        with model.trace(given):
            wanted = model.layers[1].output[where].save()
        assert near(replayed(PROMPTS, given, where), wanted)
    with model.trace(["j k l", "m n o"]):
        wanted = model.layers[1].output[:, 0].save()
    assert near(replayed(even, ["j k l", "m n o"], (slice(None), 0)), wanted)


def test_keys_at_later_steps_are_counted_from_the_end(model: ip.Model) -> None:
    for where in ((slice(None), slice(None), -1, 0), (..., 2), (..., slice(0, 2)), (0, 0, 0, 1)):
        with pytest.raises(TraceError, match=r"attn\.pattern is indexed by positions from the end"):  # noqa: SIM117
            with model.generate(PROMPTS, max_new_tokens=3, stop=()) as t, t.steps(1):
                model.layers[1].attn.pattern[where].save()
    with model.generate(PROMPTS, max_new_tokens=3, stop=()) as t, t.steps(1):
        newest = model.layers[1].attn.pattern[:, :, 0, -1].save()
        whole = model.layers[1].attn.pattern.save()
    assert all(torch.equal(a, b[:, :, 0, -1]) for a, b in zip(newest, whole, strict=True))
