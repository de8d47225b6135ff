"""A feed and its tensors that have travelled are the ones that were sent."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import GraphError, SearchError
from interpose.graph.feed import Generation
from interpose.wire import Format, decode_feed, encode_feed

FORMAT = Format("parcel", "1", SearchError)


def test_a_feed_comes_back_through_the_bytes_of_a_file(model: ip.Model, ids: torch.Tensor) -> None:
    v = torch.randn(24)
    with model.trace(ids) as t:
        model.layers[1].output[:, -1] += v
        expected = model.logits[:, -1].save()
    text, tensors = encode_feed(t.feed)
    data = FORMAT.pack(tensors, {"feed": text})
    tensors, header = FORMAT.unpack(data, "the request")
    back = decode_feed(header["feed"], tensors)
    assert next(model.backend.run_many([t.graph], [back]))["saved0"].equal(expected)


def test_arguments_of_every_plain_kind_come_back() -> None:
    x = torch.arange(3)
    kwargs = {"a": None, "b": True, "c": [1.0, (x, "text")], "d": {"e": {}}, "f": float("inf")}
    feed = ip.Feed({"w": ip.Batch((x, 2), kwargs, Generation(3, temperature=0.5, stop=(1, 2)))}, {"c0": x, "c1": x[1:]})
    text, tensors = encode_feed(feed)
    tensors, _ = FORMAT.unpack(FORMAT.pack(tensors, {}), "it")  # one tensor under several names shares no memory there
    back = decode_feed(text, tensors)
    batch = back.worlds["w"]
    assert batch.generation == Generation(3, temperature=0.5, stop=(1, 2))
    assert batch.args[1] == 2
    assert batch.args[0].equal(x)
    assert back.tensors["c1"].equal(x[1:])
    found: Any = dict(batch.kwargs)
    assert found["c"][1][0].equal(x)
    found["c"][1] = "seen"
    assert found == {**kwargs, "c": [1.0, "seen"]}


_BATCH = {"args": [], "kwargs": {}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"worlds": {"a": {**_BATCH, "hooks": []}}}, "worlds.a.hooks: Extra inputs are not permitted"),
        ({"worlds": {"a": {**_BATCH, "args": [{"tensor": "t9"}]}}}, "The tensor 't9' did not come with it"),
        ({"worlds": {"a": {**_BATCH, "args": [{"dict": [["a"]]}]}}}, "A dictionary holds a list of pairs"),
        ({"worlds": {"a": {**_BATCH, "args": [{"dict": [[1, 2]]}]}}}, "The keys of a dictionary are texts"),
        ({"worlds": {"a": {**_BATCH, "args": [{"list": 3}]}}}, "A list holds a list, not 3"),
        ({"worlds": {"a": {**_BATCH, "args": [{"pickle": "x"}]}}}, "no kind of value named 'pickle'"),
        ({"worlds": {"a": {**_BATCH, "generation": 3}}}, "worlds.a.generation: "),
        (
            {"worlds": {"a": {**_BATCH, "generation": {"generation": [0, 0.0, None, None, 0, [], 0, None]}}}},
            "max_new_tokens must be a whole number, at least 1",
        ),
        ({"tensors": []}, "tensors: Input should be a valid dictionary"),
        ({"interpose": "graph"}, "does not say that it is one"),
    ],
)
def test_a_feed_that_was_not_written_is_refused(changes: dict[str, Any], said: str) -> None:
    text = json.dumps({"interpose": "feed", "version": 1, "worlds": {}, "tensors": {}} | changes)
    with pytest.raises(GraphError, match=said):
        decode_feed(text, {})


def test_what_cannot_travel_is_refused() -> None:
    for value, said in [(object(), "A object cannot be sent"), ({1: 2}, "A dict cannot be sent"), ({3}, "A set")]:
        with pytest.raises(GraphError, match=said):
            encode_feed(ip.Feed({"a": ip.Batch((value,))}))


def test_bytes_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    data = FORMAT.pack({"a": torch.zeros(5)}, {})
    for broken in (b"", data[:4], data[:20], data[:-1], b"\xff" * 40, data[:8] + b"x" + data[9:]):
        with pytest.raises(SearchError, match="the reply is not a whole safetensors file"):
            FORMAT.unpack(broken, "the reply")
    with pytest.raises(SearchError, match="the reply holds parcel, not letter"):
        Format("letter", "1", SearchError).unpack(data, "the reply")
    with pytest.raises(SearchError, match="format version 1, but this interpose reads version 2"):
        Format("parcel", "2", SearchError).unpack(data, "the reply")
    assert not list(tmp_path.iterdir())
