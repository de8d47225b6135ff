"""Pictures of one prompt: the numbers are the network's own, files are what they say, and text stays text."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from matplotlib import rcParams
from matplotlib.image import imread
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.errors import InterposeError, SiteError, TraceError
from interpose.report import paper
from interpose.report.attention_picture import AttentionPicture
from interpose.report.lens_picture import LensPicture
from interpose.trace.spelling import width

PROMPT = "The cat, it sat"
HOSTILE = "<script>x</script><b> $\\frac{1}{0}$ ${ 東 \x1b[1m\n"


@pytest.fixture(scope="module")
def model() -> ip.Model:
    """Three layers; one token a byte."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({name: i for i, name in enumerate([*letters, "<e>"])}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    sizes = {"layers": 3, "width": 16, "heads": 4, "kv_heads": 2, "neurons": 24, "vocab": 258, "pad_token_id": 256}
    network = ip.build("llama", **sizes).network
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.mul_(1 if "norm" in name else 12)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<e>")
    tokenizer.add_tokens(["<b>"])
    return ip.wrap(network, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def lens(model: ip.Model) -> LensPicture:
    return ip.report.lens(model, PROMPT, target="a")


@pytest.fixture(scope="module")
def attention(model: ip.Model) -> AttentionPicture:
    return ip.report.attention(model, PROMPT, 1)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def texts(figure: Any) -> list[str]:
    """Everything that is written in a figure."""
    found = [each.get_text() for each in figure.texts]
    for axes in figure.axes:
        labels = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]
        found += [axes.get_title("left"), *(each.get_text() for each in labels)]
    return found


# ----------------------------------------------------------------------------------------------------------- numbers


def test_the_lens_is_the_networks_own_norm_and_unembedding_of_its_hidden_states(
    model: ip.Model, lens: LensPicture
) -> None:
    network: Any = model.network
    with torch.no_grad():
        states = network(lens.tokens.ids, output_hidden_states=True).hidden_states
        last = network(lens.tokens.ids).logits[0]
        for layer, row in enumerate(lens.table):
            logits = last if layer == 2 else network.lm_head(network.model.norm(states[layer + 1]))[0]
            chances = logits.softmax(-1)
            assert len(row) == len(PROMPT)
            for position, cell in enumerate(row):
                best = int(logits[position].argmax())
                assert cell.token == model.tokenizer.decode([best])
                assert cell.probability == pytest.approx(float(chances[position, best]), rel=1e-4)
                order = logits[position].argsort(descending=True).tolist()
                assert cell.rank == 1 + order.index(model.tokenizer("a")["input_ids"][0])


def test_without_a_target_there_are_no_ranks(model: ip.Model) -> None:
    plain = ip.report.lens(model, model.tokens("ab"))
    assert {cell.rank for row in plain.table for cell in row} == {None}
    assert "#" not in str(plain)
    assert "rank" not in plain._repr_html_()


def test_attention_is_the_networks_own(model: ip.Model, attention: AttentionPicture) -> None:
    network: Any = model.network
    network.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = network(attention.tokens.ids, output_attentions=True).attentions[1][0]
    network.set_attn_implementation("sdpa")
    assert torch.allclose(attention.table, wanted, atol=1e-5)
    some = ip.report.attention(model, PROMPT, -2, heads=[3, 0])
    assert (some.layer, some.heads) == (1, (3, 0))
    assert torch.allclose(some.table, attention.table[[3, 0]])


# ---------------------------------------------------------------------------------------------------------- terminal


def test_the_lens_in_a_terminal_shows_the_last_positions_that_fit(lens: LensPicture) -> None:
    whole, narrow = lens.text(wide=400), lens.text(wide=60)
    assert max(width(line) for line in narrow.splitlines()[4:]) <= 60
    shown = int(re.findall(r"The last (\d+) of 15 positions", narrow)[0])
    assert 1 <= shown < 15
    assert "The last" not in whole
    assert whole.splitlines()[-1].split()[0] == "2"
    cell = lens.table[2][-1]
    assert whole.endswith(f"{100 * cell.probability:.0f}% #{cell.rank}")
    assert narrow.splitlines()[-1].rstrip().endswith(f"{100 * cell.probability:.0f}% #{cell.rank}")
    assert len([line for line in narrow.splitlines() if re.match(r" +\d ", line)]) == 3
    assert len(lens.text(wide=1).splitlines()) == len(narrow.splitlines()), "one position is always shown"


def test_attention_in_a_terminal_shows_where_each_head_looks_most(attention: AttentionPicture) -> None:
    rows = [line.split() for line in str(attention).splitlines()[-4:]]
    for head, row in enumerate(rows):
        pattern = attention.table[head, -1]
        best = int(pattern.argmax())
        assert row[:2] == [str(head), str(best)]
        assert row[3] == f"{100 * float(pattern[best]):.0f}%"
    assert "from position 14, t" in str(attention)
    assert "from position 0, T" in attention.text(position=0)


# ------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("which", ["lens", "attention"])
def test_a_picture_is_written_as_what_its_name_says(
    which: str, request: pytest.FixtureRequest, model: ip.Model, tmp_path: Path
) -> None:
    picture = request.getfixturevalue(which)
    before = dict(rcParams)
    paths = {kind: picture.save(tmp_path / f"my picture.{kind}") for kind in ("png", "svg", "html")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my picture.html", "my picture.png", "my picture.svg"]
    pixels = imread(paths["png"])
    assert pixels.shape[0] > 400 and pixels.shape[1] > 400
    assert len({tuple(colour) for colour in pixels[::7, ::7].reshape(-1, pixels.shape[2])}) > 10
    assert ElementTree.fromstring(paths["svg"].read_text()).tag.endswith("svg")
    page = Page(paths["html"].read_text(encoding="utf-8"))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes
    assert model.info.name in page.text
    assert not [value for name, value in page.attributes if name in ("src", "href") and "http" in str(value)]
    again = picture.save(tmp_path / "again.svg").read_bytes()
    assert again == paths["svg"].read_bytes(), "the same picture is the same file"
    assert dict(rcParams) == before


def test_a_picture_says_what_it_is_of(lens: LensPicture, attention: AttentionPicture, model: ip.Model) -> None:
    written = texts(lens.draw())
    assert f"Logit lens of {model.info.name}" in written
    assert f"Prompt: {PROMPT}" in written
    assert any("'a'" in text for text in written)
    heads = texts(attention.draw())
    assert f"Attention of layer 1 in {model.info.name}" in heads
    assert [text for text in heads if text.startswith("head ")] == [f"head {i}" for i in range(4)]
    assert heads.count("T") == 4, "tokens stand at the left of both rows and below both columns"


def test_long_prompts_are_cut_or_numbered_and_say_so(model: ip.Model) -> None:
    long = "abcdefgh " * 8
    written = texts(ip.report.lens(model, long).draw())
    assert "The last 24 of 72 positions." in written
    numbered = texts(ip.report.attention(model, long, 0, heads=[2]).draw())
    assert "70" in numbered and "a" not in numbered
    assert any("numbered below" in text for text in numbered)


def test_hostile_text_stays_text(model: ip.Model, tmp_path: Path) -> None:
    for picture in (ip.report.lens(model, HOSTILE), ip.report.attention(model, HOSTILE, 0, heads=[0])):
        html = picture.save(tmp_path / "a.html").read_text(encoding="utf-8")
        assert not {"script", "b"} & set(Page(html).tags)
        page = Page(picture._repr_html_())
        assert "<script>x</script><b>" in page.text + str(page.attributes)
        svg = picture.save(tmp_path / "a.svg").read_text(encoding="utf-8")
        assert "<script" not in svg
        assert "\x1b" not in str(picture)
    written = texts(ip.report.lens(model, HOSTILE).draw())
    assert any("$\\frac{1}{0}$" in text for text in written), "no mathematics is read into it"
    assert any("\\u6771" in text for text in written), "what the font lacks is shown as an escape"


def test_words_are_made_to_fit() -> None:
    assert paper.fitted("cat", 100.0, 8.0) == ("cat", 8.0)
    text, size = paper.fitted("extraordinarily", 55.0, 8.0)
    assert text == "extraordinarily" and 5 <= size < 8
    text, size = paper.fitted("extraordinarily" * 3, 55.0, 8.0)
    assert text.startswith("extraor") and text.endswith("…") and size == 5


# ---------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda m: ip.report.lens(m, m.tokens(["a", "b"])), TraceError, "a picture is of one prompt, and these are 2."),
        (lambda m: ip.report.lens(m, "a", target="ab"), TraceError, r"the target 'ab' is 2 tokens \('a', 'b'\)"),
        (lambda m: ip.report.attention(m, "a", 3), SiteError, r"there is no layers\[3\]: this model has 3 layers"),
        (lambda m: ip.report.attention(m, "a", 0, heads=[4]), SiteError, "there is no head 4: each layer has 4 heads"),
        (lambda m: ip.report.attention(m, "a", 0, heads=[]), SiteError, "there is no head to show"),
        (lambda m: ip.report.lens(ip.wrap(torch.nn.Linear(2, 2)), "a"), TraceError, "has no tokenizer"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    make: Callable[[ip.Model], Any], kind: type[Exception], message: str, model: ip.Model
) -> None:
    with pytest.raises(kind, match=rf"^{__file__}:\d+: .*{message}"):
        make(model)


def test_a_file_that_cannot_be_written_is_refused(lens: LensPicture, tmp_path: Path) -> None:
    with pytest.raises(InterposeError, match=r"cannot be written to lens.jpg: name it .html, .png or .svg."):
        lens.save(tmp_path / "lens.jpg")
    with pytest.raises(InterposeError, match=r"There is no folder .*none to write lens.png into. Make it first."):
        lens.save(tmp_path / "none" / "lens.png")
    assert not list(tmp_path.iterdir())
