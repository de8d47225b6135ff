"""Models of the zoo as they are loaded: checked weights, words as tokens, cards whose faults are named."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import interpose as ip
from interpose.errors import LoadError
from interpose.loading import words
from interpose.loading.cards import Vocabulary, cards, read

NAME = "sorting-by-hand"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a model's folder, to break."""
    return Path(shutil.copytree(cards()[NAME].folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def model() -> ip.Model:
    return ip.load(NAME)


def changed(folder: Path, old: str, new: str) -> None:
    text = (folder / "card.toml").read_text()
    assert old in text
    (folder / "card.toml").write_text(text.replace(old, new))


def test_a_model_is_loaded_by_name_or_from_a_folder_and_leaves_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    by_name, by_path = ip.load(f"zoo/{NAME}"), ip.load(folder)
    assert torch.equal(torch.rand(2), expected)
    for one, other in zip(by_name.network.parameters(), by_path.network.parameters(), strict=True):
        assert torch.equal(one, other)
        assert not one.requires_grad
    assert by_name.info.source == "zoo"
    assert by_name.info.weights_hash == cards()[NAME].weights.sha256  # type: ignore[union-attr]
    assert not by_name.network.training


def test_number_type_and_device_are_as_asked_for() -> None:
    assert ip.load(NAME, dtype="float64", device="cpu").dtype == torch.float64
    with pytest.raises(LoadError, match="goes to one device: write device='cuda' in place of device_map"):
        from interpose.loading import zoo
        from interpose.loading.placement import Placement

        zoo.load(cards()[NAME], Placement(device_map="auto"))


def test_words_are_tokens_with_or_without_a_blank(model: ip.Model) -> None:
    tokenizer = model.tokenizer
    start, sort, three = (tokenizer.convert_tokens_to_ids(word) for word in ("<s>", "sort", "3"))
    assert tokenizer(["sort 3", " sort  3 zebra"])["input_ids"] == [
        [start, sort, three],
        [start, sort, three, tokenizer.unk_token_id],
    ]
    assert tokenizer([" 3", "3"], add_special_tokens=False)["input_ids"] == [[three], [three]]
    assert tokenizer.decode([three]) == "3"
    pairs = ip.pairs(model, clean=["sort 7 3 :"], corrupt=["sort 2 1 :"], answers=[" 3"], wrong=["7"])
    assert pairs.answers.tolist() == [three]


def test_padding_on_the_left_changes_nothing() -> None:
    model = ip.load("induction-by-hand")
    prompts = ["stone river apple river", "horse stone river apple cloud river"]
    with model.trace(prompts):
        together = model.logits[:, -1].save()
    for prompt, logits in zip(prompts, together, strict=True):
        with model.trace(prompt):
            alone = model.logits[0, -1].save()
        assert model.tokenizer.decode([int(alone.argmax())]) == "apple"
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-4)


def test_damaged_or_missing_weights_are_refused(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(LoadError, match="is not the file that its card names: its sha256 is [0-9a-f]{64}, expected"):
        ip.load(folder)
    path.unlink()
    with pytest.raises(LoadError, match=f"The weights of {NAME} are missing: there is no .*weights.safetensors"):
        ip.load(folder)


def test_weights_that_do_not_fit_the_config_are_refused(folder: Path) -> None:
    changed(folder, "neurons = 64", "neurons = 32")
    with pytest.raises(LoadError, match=r"do not fit a gpt2 with its \[config\]: size mismatch for transformer.h.0"):
        ip.load(folder)


def test_weights_larger_than_the_zoo_allows_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interpose.loading.zoo.MOST_BYTES", 1000)
    with pytest.raises(LoadError, match=r"has [\d,]+ bytes; weights in the zoo have at most 1,000"):
        ip.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('task = "sorting"', "colour = 3", "it has a field 'colour' that no card has; expected name, what,"),
        ('licence = "Apache-2.0"\n', "", "it lacks the field 'licence'"),
        ("parameters = ", "parameters = 0.5\n#", "parameters is 0.5; expected a whole number"),
        ("bytes = ", "bytes = true\n#", "[weights] bytes is True; expected a whole number"),
        ("sha256 = ", "sha = ", "[weights] it has a field 'sha' that no card has; expected sha256, bytes, file"),
        (
            "[scores.first]\nvalue = 1.0",
            "[scores.first]\nvalue = 'x'",
            "[scores.first] value is 'x'; expected a number",
        ),
        ("first = ", "words = 3\n#", "Cannot overwrite a value"),
        ('words = [\n  "<pad>", "<unk>", ', "words = [\n", "[tokenizer] words lack '<unk>'"),
        ("[config]", "[configs]", "it has a field 'configs'"),
        ("[weights]", "[weights2]", "it has a field 'weights2'"),
        ("[truth]\nedges = [", "[truth]\nedges = [3, ", "[truth] edges is "),
        ("[tokenizer]\n", "[tokenizer]\nfile = 'x.json'\n", "[tokenizer] with one of words = [...] and file = '...'"),
    ],
)
def test_a_fault_in_a_card_is_named(folder: Path, old: str, new: str, message: str) -> None:
    changed(folder, old, new)
    with pytest.raises(LoadError) as raised:
        read(folder / "card.toml")
    assert str(raised.value).startswith(f"{folder / 'card.toml'} is not a model card: ")
    assert message in str(raised.value)


def test_a_card_needs_weights_somewhere(folder: Path, tmp_path: Path) -> None:
    own = (folder / "card.toml").read_text()
    head = own[: own.index("[weights]")]
    (folder / "card.toml").write_text(head)
    with pytest.raises(LoadError, match=r"it needs one of the tables \[wheel\] and \[weights\], and has neither"):
        read(folder / "card.toml")
    wheel = (cards()["smollm2-135m-instruct"].folder / "card.toml").read_text()
    (folder / "card.toml").write_text(own + wheel[wheel.index("[wheel]") :])
    with pytest.raises(LoadError, match="and has both"):
        read(folder / "card.toml")
    with pytest.raises(LoadError, match="lie beside its card, in .*, not in a wheel"):
        _ = cards()[NAME].in_wheel


def test_a_circuit_of_no_edges_is_refused(folder: Path) -> None:
    own = (folder / "card.toml").read_text()
    (folder / "card.toml").write_text(own[: own.index("[truth]")] + '[truth]\nedges = []\nproof = "x"\n')
    with pytest.raises(LoadError) as raised:
        read(folder / "card.toml")
    assert str(raised.value).startswith(
        f"{folder / 'card.toml'} is not a model card: [truth] edges is empty; expected "
    )
    assert str(raised.value).endswith("Where the circuit is not known, leave [truth] out.")


def test_a_tokenizer_file_is_read_and_a_missing_one_is_named(model: ip.Model, tmp_path: Path) -> None:
    model.tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    from_file: Any = words.tokenizer(Vocabulary(file="tokenizer.json", first="<s>"), tmp_path, "x")
    text = ["sort 3 4 :", "sort 3"]
    assert from_file(text, padding=True)["input_ids"] == model.tokenizer(text, padding=True)["input_ids"]
    assert from_file(text, padding=True)["attention_mask"][1] == [0, 0, 1, 1, 1]
    with pytest.raises(LoadError, match="The tokenizer .*nothing.json cannot be read: "):
        words.tokenizer(Vocabulary(file="nothing.json"), tmp_path)


def test_a_list_that_is_no_vocabulary_is_refused() -> None:
    for bad in (("<unk>", "a", "a"), ("<unk>", "a b"), ("<unk>", "")):
        with pytest.raises(LoadError, match="A vocabulary is a list of different words without blanks"):
            words.tokenizer(Vocabulary(words=bad))
    with pytest.raises(LoadError, match="The word in front of every prompt, '<s>', is not in the vocabulary"):
        words.tokenizer(Vocabulary(words=("<unk>",), first="<s>"))


def test_punctuation_is_split_off_where_the_card_says_so() -> None:
    known = ("<unk>", "<s>", "bakery", ",", ".", "Kate", "bakery,")
    apart = words.tokenizer(Vocabulary(known, "<s>", punctuation=True))
    assert apart(["bakery, Kate.", " Kate"])["input_ids"] == [[1, 2, 3, 5, 4], [1, 5]]
    together = words.tokenizer(Vocabulary(known, "<s>"))
    assert together("bakery, Kate.")["input_ids"] == [1, 6, 0]
