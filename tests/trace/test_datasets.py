"""Activations of many prompts on disk: what they hold, how they are read, and what happens when writing is cut off."""

import copy
import errno
import fcntl
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import interpose as ip
from interpose.errors import DataError, InterposeError, RunError, SiteError
from interpose.trace import shards

SITES = ["layers.1.output", "layers[0].attn.key", "layers.2.attn.z", 'module("model.layers.1.mlp").output']
MAKE = """
import torch
import interpose as ip

def make():
    torch.manual_seed(3)
    return ip.build("llama", layers=3, width=24, heads=4, kv_heads=2, neurons=32, vocab=50)

def prompts(number=60):
    lengths = torch.randint(1, 9, (number,), generator=torch.manual_seed(5))
    return [torch.randint(2, 50, (n,), generator=torch.manual_seed(n)).tolist() for n in lengths.tolist()]

SETTINGS = dict(sites=["layers.1.output", "layers.0.attn.z"], batch_size=4, shard_bytes=8000, progress=False)
"""
NAMES: dict[str, Any] = {}
exec(MAKE, NAMES)
PROMPTS: list[list[int]] = NAMES["prompts"]()
SETTINGS: dict[str, Any] = NAMES["SETTINGS"]


@pytest.fixture(scope="module")
def tiny() -> ip.Model:
    """The model of the other process too; no test changes it."""
    return NAMES["make"]()


@pytest.fixture(scope="module")
def whole(tiny: ip.Model, tmp_path_factory: pytest.TempPathFactory) -> ip.Activations:
    """A data set that was written without interruption; no test changes it."""
    return tiny.cache(PROMPTS, out=tmp_path_factory.mktemp("whole") / "data", **SETTINGS)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hooked(model: ip.Model, path: str, ids: list[int]) -> torch.Tensor:
    """What a raw hook sees a module return for one prompt."""
    seen: list[torch.Tensor] = []
    module = model.network.get_submodule(path)
    handle = module.register_forward_hook(lambda _, args, out: seen.append(out if torch.is_tensor(out) else out[0]))
    with torch.no_grad():
        model.network(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return seen[0][0]


# What is stored


def test_rows_are_what_raw_hooks_see_without_padding(tiny: ip.Model, tmp_path: Path) -> None:
    alone = tiny.cache(PROMPTS[:12], SITES, tmp_path / "one", batch_size=1)
    together = tiny.cache(PROMPTS[:12], SITES, tmp_path / "five", batch_size=5)
    for path, name in (("model.layers.1", SITES[0]), ("model.layers.1.mlp", SITES[3])):
        wanted = torch.cat([hooked(tiny, path, ids) for ids in PROMPTS[:12]])
        assert torch.equal(alone[name][:], wanted)
        assert torch.allclose(together[name][:], wanted, atol=1e-5)
    with tiny.trace(torch.tensor([PROMPTS[0]])):
        key, z = tiny.layers[0].attn.key.save(), tiny.layers[2].attn.z.save()
    assert torch.equal(alone["layers.0.attn.key"][: len(PROMPTS[0])], key[0].movedim(0, 1))
    assert torch.equal(alone["layers.2.attn.z"][: len(PROMPTS[0])], z[0])
    assert together["layers.0.attn.key"].shape == (len(together), 2, 6)
    for data in (alone, together):
        assert data.tokens[:].tolist() == [token for ids in PROMPTS[:12] for token in ids]
        assert data.prompt[:].tolist() == [number for number, ids in enumerate(PROMPTS[:12]) for _ in ids]
        assert data.position[:].tolist() == [position for ids in PROMPTS[:12] for position in range(len(ids))]


def test_last_positions_only(tiny: ip.Model, tmp_path: Path) -> None:
    every = tiny.cache(PROMPTS[:9], SITES, tmp_path / "all", batch_size=4)
    last = tiny.cache(PROMPTS[:9], SITES, tmp_path / "last", batch_size=4, positions="last")
    ends = torch.tensor([len(ids) for ids in PROMPTS[:9]]).cumsum(0) - 1
    assert len(last) == 9
    for name in (*every.sites, "tokens", "prompt", "position"):
        assert torch.equal(last[name][:], every[name][ends])


def test_numbers_are_stored_in_the_type_that_was_asked_for(tiny: ip.Model, tmp_path: Path) -> None:
    plain = tiny.cache(PROMPTS[:5], "layers.1.output", tmp_path / "plain")
    for dtype, kind in (("float16", torch.float16), (torch.bfloat16, torch.bfloat16), ("float32", torch.float32)):
        data = tiny.cache(PROMPTS[:5], "layers.1.output", tmp_path / str(dtype), dtype=dtype)
        assert data["layers.1.output"].dtype == kind
        assert torch.equal(data["layers.1.output"][:], plain["layers.1.output"][:].to(kind))
        assert data.tokens.dtype == torch.int64


def test_values_beyond_the_stored_type_are_refused(tmp_path: Path) -> None:
    large = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 4)).eval())
    x = torch.full((3, 4), 1e6)
    with pytest.raises(DataError, match=r'module\("0"\)\.output holds values up to .* more than float16 can.*bfloat16'):
        large.cache(x, 'module("0").output', tmp_path / "half", dtype="float16")
    assert len(large.cache(x, 'module("0").output', tmp_path / "brain", dtype="bfloat16")) == 3


@pytest.mark.parametrize("form", ["lists", "tensors", "matrix", "iterator", "batch", "dictionary"])
def test_prompts_are_given_in_several_ways(tiny: ip.Model, tmp_path: Path, form: str) -> None:
    ids = torch.tensor([[5, 17, 3], [12, 4, 33]])
    mask = torch.ones_like(ids)
    given = {
        "lists": ids.tolist(),
        "tensors": list(ids),
        "matrix": ids,
        "iterator": iter(ids.tolist()),
        "batch": ip.Batch.of_tokens(ids, mask),
        "dictionary": {"input_ids": ids, "attention_mask": mask},
    }[form]
    data = tiny.cache(given, "layers.1.output", tmp_path, batch_size=2)
    with tiny.trace(ids):
        wanted = tiny.layers[1].output.save()
    assert torch.equal(data["layers.1.output"][:], wanted.flatten(0, 1))


def test_texts_are_cut_as_in_a_block(model: ip.Model, tmp_path: Path) -> None:
    texts = ["one two three", "four", "five six"]
    data = model.cache(texts, "logits", tmp_path / "several")
    batch = model.tokens(texts)
    assert torch.equal(data.tokens[:], batch.ids[batch.mask])
    assert len(model.cache("one two three", "logits", tmp_path / "one")) == 3
    padded = model.cache(batch, "logits", tmp_path / "padded")
    assert torch.equal(padded["logits"][:], data["logits"][:])


def test_any_network_of_any_input(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = ip.wrap(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).eval())
    x = torch.randn(10, 4)
    data = net.cache(x, 'module("1").output', tmp_path / "examples", batch_size=3)
    with torch.no_grad():
        wanted = net.network[:2](x)
    assert torch.allclose(data["module('1').output"][:], wanted)
    assert data.prompt[:].tolist() == list(range(10))
    with pytest.raises(DataError, match=r"has no tokens; it has .*prompt"):
        _ = data.tokens

    words = ip.wrap(torch.nn.Sequential(torch.nn.Embedding(20, 6), torch.nn.Linear(6, 3)).eval())
    rows = words.cache([[1, 2, 3], [4, 5, 6]], 'module("1").output', tmp_path / "tokens", batch_size=2)
    assert torch.equal(rows.tokens[:], torch.arange(1, 7))
    with torch.no_grad():
        assert torch.equal(
            rows['module("1").output'][:], words.network(torch.tensor([[1, 2, 3], [4, 5, 6]])).flatten(0, 1)
        )
    with pytest.raises(DataError, match=r"prompts 0 to 1 go into one batch and have different shapes .*batch_size=1"):
        words.cache([[1, 2, 3], [4]], 'module("1").output', tmp_path / "ragged")
    assert len(words.cache([[1, 2, 3], [4]], 'module("1").output', tmp_path / "ragged", batch_size=1)) == 4


def test_nothing_runs_after_the_last_site_and_the_users_hooks_stay(tiny: ip.Model, tmp_path: Path) -> None:
    fired = []
    handles = [
        layer.register_forward_hook(lambda *_, number=number: fired.append(number))
        for number, layer in enumerate(tiny.network.model.layers)
    ]
    tiny.cache(PROMPTS[:8], ["layers.0.output", "layers.1.mlp.neurons"], tmp_path, batch_size=4)
    for handle in handles:
        handle.remove()
    assert set(fired) == {0}
    assert fired.count(0) == 2


def test_prompts_are_not_gathered_before_they_run(tiny: ip.Model, tmp_path: Path) -> None:
    there: list[int] = []

    def endless() -> Iterator[list[int]]:
        for ids in PROMPTS:
            there.append(len(list((tmp_path / "data").glob("shard-*"))))
            yield ids

    data = tiny.cache(endless(), out=tmp_path / "data", **SETTINGS)
    assert there[-1] >= 2
    assert data.about["prompts"] == len(PROMPTS)


# How it is read


def test_rows_are_indexed_as_a_tensor_is(whole: ip.Activations) -> None:
    rows, every = whole["blocks.1.hook_resid_post"], whole["layers.1.output"][:]
    assert rows.shape == (len(whole), 24)
    assert len(rows) == len(every) == sum(map(len, PROMPTS))
    assert len(list(whole.folder.glob("shard-*"))) > 3
    mixed = torch.randperm(len(every), generator=torch.manual_seed(0))
    mask = every[:, 0] > 0
    for index in (
        0,
        -1,
        slice(3, 90),
        slice(None, None, 7),
        slice(5, 5),
        slice(-4, None),
        mixed,
        mask,
        [4, -4],
        mixed[:0],
    ):
        assert torch.equal(rows[index], every[index])
    assert torch.equal(rows[mixed[:6].view(2, 3)], every[mixed[:6].view(2, 3)])
    assert torch.equal(rows[mixed.numpy()], every[mixed])
    assert torch.equal(torch.stack(list(rows)), every)
    rows[0].zero_()
    assert torch.equal(rows[:], every)
    assert repr(rows) == f"Rows(layers.1.output: [{len(every)}, 24] float32)"
    assert "rows of layers.1.output, layers.0.attn.z; llama" in repr(whole)
    with pytest.raises(IndexError, match=f"no row {len(every)}: layers.1.output has {len(every)} rows"):
        _ = rows[len(every)]
    for wrong, text in (("a", "not by str"), ((0, 1), "rows first"), (mask[1:], "mask"), ([0.5], "whole numbers")):
        with pytest.raises(DataError, match=text):
            _ = rows[wrong]
    with pytest.raises(DataError, match=r"has no layers\.2\.output; it has .*layers\.1\.output"):
        _ = whole["layers.2.output"]
    with pytest.raises(SiteError, match="Nearest names"):
        _ = whole["layers.2.outptu"]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    wide = ip.wrap(torch.nn.Sequential(torch.nn.Embedding(8, 2048)).eval())
    wide.cache([[at % 8] * 256 for at in range(24)], 'module("0").output', tmp_path, batch_size=8, shard_bytes=2**24)

    def own() -> int:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])

    before = own()
    data = ip.Activations.load(tmp_path)
    rows = data['module("0").output']
    assert torch.equal(rows[17 * 256 + 3], wide.network[0].weight[17 % 8])
    assert torch.equal(rows[::257][:, 0], wide.network[0].weight[data.tokens[::257], 0])
    assert len(rows) * 2048 * 4 == 48 * 2**20
    assert own() - before < 8 * 1024


@pytest.mark.parametrize(("size", "buffer"), [(7, 2000), (16, 10**6), (1000, 1), (1, 3000)])
def test_batches_hold_every_row_once_in_an_order_of_the_seed(whole: ip.Activations, size: int, buffer: int) -> None:
    def order(**settings: Any) -> list[int]:
        found = list(whole.batches(size, sites=["layers.1.output"], buffer_bytes=buffer, **settings))
        assert {len(batch["prompt"]) for batch in found[:-1]} <= {size}
        rows = torch.cat([100 * batch["prompt"] + batch["position"] for batch in found])
        values = torch.cat([batch["layers.1.output"] for batch in found])
        assert torch.equal(values[rows.argsort()], whole["layers.1.output"][:])
        assert "layers.0.attn.z" not in found[0]
        return rows.tolist()

    first, second, again, plain = order(seed=0), order(seed=1), order(seed=0), order(shuffle=False)
    assert first == again
    assert first != second
    assert plain == sorted(plain) == sorted(first)
    assert len(set(first)) == len(whole)


def test_shuffling_takes_a_batch_from_all_over(whole: ip.Activations) -> None:
    batch = next(whole.batches(64, buffer_bytes=1))
    assert batch["prompt"].unique().numel() > 12
    assert batch["prompt"].max() - batch["prompt"].min() > 40
    with pytest.raises(DataError, match="a batch has 1 or more rows, not 0"):
        whole.batches(0)


def test_loaders_of_torch_take_it(whole: ip.Activations) -> None:
    found = [batch["layers.1.output"] for batch in DataLoader(whole, batch_size=32)]
    assert torch.equal(torch.cat(found), whole["layers.1.output"][:])
    found = list(DataLoader(whole["layers.1.output"], batch_size=32))
    assert torch.equal(torch.cat(found), whole["layers.1.output"][:])
    assert whole[3]["tokens"] == whole.tokens[3]
    again = copy.copy(whole)  # as a worker process gets it
    assert torch.equal(again.tokens[:], whole.tokens[:])


# When it is cut off


def test_a_killed_process_leaves_what_the_next_one_completes(
    tiny: ip.Model, whole: ip.Activations, tmp_path: Path
) -> None:
    script = f"""{MAKE}
import os, signal, sys

def dying():
    for number, ids in enumerate(prompts()):
        if number == 38:
            os.kill(os.getpid(), signal.SIGKILL)
        yield ids

make().cache(dying(), out=sys.argv[1], **SETTINGS)
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = {path.name for path in tmp_path.glob("shard-*")}
    assert 0 < len(before) < len(list(whole.folder.glob("shard-*")))
    with pytest.raises(DataError, match=r"is not finished\. Call model\.cache"):
        ip.Activations.load(tmp_path)
    (tmp_path / ".shard-00007.safetensors.part").write_bytes(b"half")
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in before}
    data = tiny.cache(iter(PROMPTS), out=tmp_path, **SETTINGS)
    assert files(tmp_path) == files(whole.folder)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == times
    assert torch.equal(data["layers.1.output"][:], whole["layers.1.output"][:])


def test_a_run_cut_off_between_shard_and_index_goes_on(
    tiny: ip.Model, whole: ip.Activations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock, ran = shards.Folder.write_index, []

    def die(self: shards.Folder, content: Any) -> None:
        if content["complete"]:
            raise KeyboardInterrupt
        stock(self, content)

    monkeypatch.setattr(shards.Folder, "write_index", die)
    with pytest.raises(KeyboardInterrupt):
        tiny.cache(PROMPTS, out=tmp_path, **SETTINGS)
    monkeypatch.undo()
    handle = tiny.network.register_forward_hook(lambda *_: ran.append(1))
    tiny.cache(PROMPTS, out=tmp_path, **SETTINGS)
    handle.remove()
    assert not ran
    assert files(tmp_path) == files(whole.folder)


@pytest.mark.parametrize("damage", ["missing", "short", "empty", "another"])
def test_a_damaged_shard_is_named_and_made_again(
    tiny: ip.Model, whole: ip.Activations, tmp_path: Path, damage: str
) -> None:
    tiny.cache(PROMPTS, out=tmp_path, **SETTINGS)
    path = tmp_path / "shard-00001.safetensors"
    content = path.read_bytes()
    path.write_bytes(
        {"short": content[:-9], "another": (tmp_path / "shard-00002.safetensors").read_bytes()}.get(damage, b"")
    )
    if damage == "missing":
        path.unlink()
    if damage == "another" and path.stat().st_size == len(content):
        path.write_bytes(path.read_bytes() + b"x")
    state = "missing" if damage == "missing" else "damaged"
    with pytest.raises(DataError, match=rf"shard-00001\.safetensors is {state}\. Call model\.cache.*makes that shard"):
        ip.Activations.load(tmp_path)
    tiny.cache(PROMPTS, out=tmp_path, **SETTINGS)
    assert files(tmp_path) == files(whole.folder)


def test_a_shard_that_is_damaged_while_it_is_used_is_named(tiny: ip.Model, tmp_path: Path) -> None:
    data = tiny.cache(PROMPTS[:5], "layers.1.output", tmp_path)
    path = tmp_path / "shard-00000.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=r"shard-00000\.safetensors is damaged"):
        _ = data.tokens[0]


OTHER: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 5}, r"batch_size was 4 and is 5"),
    ({"sites": ["layers.1.output"]}, r"sites was \['layers\.1\.output', 'layers\.0\.attn\.z'\] and is"),
    ({"positions": "last"}, r"positions was 'all' and is 'last'"),
    ({"dtype": "float16", "shard_bytes": 9000}, r"dtype was None and is 'float16'; shard_bytes was 8000 and is 9000"),
]


@pytest.mark.parametrize("number", range(len(OTHER)))
def test_other_settings_are_refused_by_name(tiny: ip.Model, whole: ip.Activations, number: int) -> None:
    change, text = OTHER[number]
    before = files(whole.folder)
    with pytest.raises(DataError, match=rf"^{__file__}:\d+: .* was begun with other settings: {text}"):
        tiny.cache(PROMPTS, out=whole.folder, **SETTINGS | change)
    assert files(whole.folder) == before


def test_another_model_or_version_is_refused(tiny: ip.Model, tmp_path: Path) -> None:
    folder = tiny.cache(PROMPTS, out=tmp_path, **SETTINGS).folder
    index = json.loads((folder / "index.json").read_text())
    other = ip.Model(copy.deepcopy(tiny.network), info=tiny.info)
    with torch.no_grad():
        other.network.model.norm.weight[0] += 1e-6
    with pytest.raises(DataError, match=r"the weights are others \(then llama, now llama\)"):
        other.cache(PROMPTS, out=folder, **SETTINGS)
    index["versions"]["torch"] = "1.0"
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"versions was .*'torch': '1\.0'.* and is"):
        tiny.cache(PROMPTS, out=folder, **SETTINGS)
    (folder / "index.json").write_text(json.dumps(index | {"format": 99}))
    with pytest.raises(DataError, match="has format 99, and this interpose reads format 1"):
        ip.Activations.load(folder)
    (folder / "index.json").write_text("{")
    with pytest.raises(DataError, match="index.json is damaged"):
        ip.Activations.load(folder)


@pytest.mark.parametrize("change", ["swapped", "fewer", "more"])
@pytest.mark.parametrize("finished", [True, False])
def test_other_prompts_are_refused(tiny: ip.Model, tmp_path: Path, change: str, finished: bool) -> None:
    tiny.cache(PROMPTS, out=tmp_path, **SETTINGS)
    if not finished:
        index = json.loads((tmp_path / "index.json").read_text())
        (tmp_path / "index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "prompts"}))
    other = {"swapped": [*PROMPTS[:5], PROMPTS[6], PROMPTS[5], *PROMPTS[7:]], "fewer": PROMPTS[:-1]}
    given = other.get(change, [*PROMPTS, PROMPTS[0]])
    with pytest.raises(DataError, match=r"begun with other prompts: (something among prompts|it holds 60 prompts)"):
        tiny.cache(given, out=tmp_path, **SETTINGS)


def test_another_tokenizer_is_refused(model: ip.Model, tmp_path: Path) -> None:
    class Others:
        pad_token_id = 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [3] * len(text)}

    model.cache(["one two", "three"], "layers.1.output", tmp_path)
    other = ip.Model(model.network, tokenizer=Others(), info=model.info)
    with pytest.raises(DataError, match="the tokenizer cuts prompt 0 into other tokens"):
        other.cache(["one two", "three"], "layers.1.output", tmp_path)


# What cannot be


def test_a_full_disk_is_said_and_what_was_written_is_kept(
    tiny: ip.Model, whole: ip.Activations, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()

    def fills_up() -> Iterator[list[int]]:
        for number, ids in enumerate(PROMPTS):
            if number == 30:
                (folder / f".shard-{len(list(folder.glob('shard-*'))):05d}.safetensors.part").symlink_to("/dev/full")
            yield ids

    with pytest.raises(DataError, match=r"The disk of .*data is full\. What was written before is kept.*goes on there"):
        tiny.cache(fills_up(), out=folder, **SETTINGS)
    assert list(folder.glob("shard-*"))
    tiny.cache(PROMPTS, out=folder, **SETTINGS)
    assert files(folder) == files(whole.folder)


def test_a_folder_that_cannot_be_written_is_named(
    tiny: ip.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=rf"{out} cannot be written: (File exists|Not a directory)"):
            tiny.cache(PROMPTS, out=out, **SETTINGS)
    with pytest.raises(DataError, match=r"holds other files \(file\) and no data set"):
        tiny.cache(PROMPTS, out=tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match="cannot be written: Permission denied. Choose another folder"):
        tiny.cache(PROMPTS, out=tmp_path / "new", **SETTINGS)


def test_what_is_no_data_set_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no data set in .* \(no index\.json\)"):
        ip.Activations.load(tmp_path / "absent")
    (tmp_path / "index.json").write_text('{"weight_map": {}}')
    with pytest.raises(DataError, match="index.json belongs to something else"):
        ip.Activations.load(tmp_path)


def test_two_processes_do_not_write_to_one_folder(tiny: ip.Model, whole: ip.Activations) -> None:
    handle = os.open(whole.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(DataError, match="Another process is writing to"):
            tiny.cache(PROMPTS, out=whole.folder, **SETTINGS)
    finally:
        os.close(handle)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sites": "layers.1.outptu"}, SiteError, r"Nearest names: layers\[1\]\.output.*module\(\"path\"\)"),
    ({"sites": "layers.9.output"}, SiteError, r"this model has 3 layers"),
    ({"sites": []}, DataError, "there is no site to cache"),
    ({"sites": "layers.1.attn.pattern"}, DataError, r"layers\[1\]\.attn\.pattern has a row and a column"),
    ({"sites": 'module("model.layer.1").output'}, SiteError, r"no module at 'model\.layer\.1'.*model\.layers\.1"),
    ({"sites": 'module("model.norm").inputs'}, SiteError, r"a module has \.input and \.output"),
    ({"batchsize": 3}, DataError, "no option 'batchsize'. Nearest: batch_size"),
    ({"batch_size": 0}, DataError, "batch_size=0. Write a whole number"),
    ({"positions": "first"}, DataError, "positions='first'. Write positions='all' or positions='last'"),
    ({"dtype": "int8"}, DataError, "dtype='int8'. Write one of 'float16', 'bfloat16', 'float32'"),
    ({"prompts": []}, DataError, "there is no prompt to cache"),
    ({"prompts": [[1], []]}, DataError, "prompt 1 is empty. A prompt is a text or the ids"),
    ({"prompts": [[1], None]}, DataError, "prompt 1 is a NoneType"),
    ({"prompts": [torch.ones(3)]}, DataError, r"prompt 0 is a tensor of shape \(3,\) and type float32"),
    ({"prompts": 5}, DataError, "was given a int"),
    ({"prompts": ["text"]}, InterposeError, "has no tokenizer, so it cannot read text"),
    ({"sites": 'module("model.rotary_emb").output'}, DataError, "gives a tuple, not one tensor"),
    ({"sites": 'module("model.embed_tokens").output', "prompts": [[1], [99]]}, RunError, r"main': index out of range"),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_cannot_be_meant_is_refused(tiny: ip.Model, tmp_path: Path, number: int) -> None:
    change, kind, text = WRONG[number]
    settings = {"sites": "layers.1.output", "prompts": [[1, 2], [3]], "progress": False, **change}
    with pytest.raises(kind, match=text):
        tiny.cache(out=tmp_path, **settings)


def test_a_network_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in training mode.*model\.network\.eval\(\)"):
        ip.wrap(torch.nn.Sequential(torch.nn.Linear(2, 2))).cache(torch.ones(1, 2), 'module("0").output', tmp_path)


class Terminal(io.StringIO):
    """Something that text is written to and that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "progress", "shown"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
def test_a_bar_is_shown_on_a_terminal_only(
    tiny: ip.Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stream: Callable[[], io.StringIO],
    progress: bool,
    shown: bool,
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.setenv("COLUMNS", "100")
    tiny.cache(PROMPTS[:6], "layers.1.output", tmp_path, batch_size=2, progress=progress)
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("6/6" in text and "left" in text) is shown
    assert bool(text) is shown
