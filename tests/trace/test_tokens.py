"""Tokens: what a prompt is cut into, how it is shown, and where a piece of it stands."""

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.errors import TraceError
from interpose.graph import markup
from interpose.trace import Tokens
from interpose.trace.spelling import visible

CLEAN = "When John and Mary left, John gave"
CORRUPT = "When John and Mary left, Mary gave"


@pytest.fixture(scope="module")
def byte_level() -> PreTrainedTokenizerFast:
    """One token a byte, but for a few words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("J", "o"),
        ("Jo", "h"),
        ("Joh", "n"),
        ("Ġ", "John"),
        ("M", "ary"),
        ("a", "r"),
        ("ar", "y"),
        ("Ġ", "Mary"),
    ]
    vocab = {name: i for i, name in enumerate([*letters, "<e>", *("".join(pair) for pair in merges)])}
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<e>")


@pytest.fixture(scope="module")
def read(byte_level: PreTrainedTokenizerFast) -> Callable[..., Tokens]:
    network = ip.build("gpt2", layers=1, width=8, heads=2, neurons=8, vocab=400, positions=64).network
    return ip.wrap(network, tokenizer=byte_level).tokens


class Cells(HTMLParser):
    """The cells of all tables, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.marked: list[str] = []
        self._marks = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._marks = "background" in str(dict(attrs).get("style"))

    def handle_data(self, data: str) -> None:
        self.rows[-1][-1] += data
        if self._marks:
            self.marked.append(data)


def test_ids_mask_and_texts_are_those_of_the_tokenizer(read: Callable[..., Tokens], byte_level: Any) -> None:
    tokens = read([CLEAN, "John"])
    assert len(tokens) == 2
    assert tokens.ids[0].tolist() == byte_level(CLEAN)["input_ids"]
    assert tokens.ids[1, tokens.mask[1]].tolist() == byte_level("John")["input_ids"]
    assert tokens.mask.dtype == torch.bool
    assert tokens.lengths == (len(byte_level(CLEAN)["input_ids"]), 1)
    assert "".join(tokens.texts[0]) == CLEAN
    assert tokens.texts[1] == ("John",)
    assert [row.prompts for row in tokens] == [(CLEAN,), ("John",)]
    assert tokens[1].ids.shape == (1, 1)
    with pytest.raises(IndexError, match="there is no prompt 2: there are 2, counted from 0"):
        tokens[2]


def test_a_block_takes_tokens_in_place_of_the_prompts(model: ip.Model) -> None:
    prompts = ["the cat sat", "one more of middle length"]
    found = []
    for given in (prompts, model.tokens(prompts), model.tokens(prompts).batch, model.batch(model.tokens(prompts))):
        with model.trace(given):
            found.append(model.logits[:, -1].save())
    with model.trace() as t, t.world("main", model.tokens(prompts)):
        found.append(model.logits[:, -1].save())
    assert all(torch.equal(found[0], other) for other in found)


def test_one_prompt_prints_as_a_table_with_blanks_that_can_be_seen(read: Callable[..., Tokens]) -> None:
    lines = str(read("a\n John\t")).splitlines()
    assert [line.split() for line in lines] == [
        ["i", "token", "id"],
        ["0", "a", str(read("a").ids.item())],
        ["1", "↵", str(read("\n").ids.item())],
        ["2", "·John", str(read(" John").ids.item())],
        ["3", "⇥", str(read("\t").ids.item())],
    ]
    assert repr(read("a")) == str(read("a"))


def test_what_has_no_shape_is_shown_as_an_escape_and_cannot_steer_a_terminal() -> None:
    assert visible("\x1b[31m") == "\\x1b[31m"
    assert visible("a\u202eb") == "a\\u202eb"
    assert visible("") == "''"
    assert visible("  ") == "␣␣", "blanks alone are not taken for full stops"


def test_several_prompts_print_aligned_on_the_right_and_counted_from_their_own_first(
    read: Callable[..., Tokens],
) -> None:
    lines = str(read([" John and", " Mary"])).splitlines()
    index, texts, _ = lines[2:5]
    assert lines[0] == "2 prompts, padded on the left"
    assert index.split() == ["prompt", "0", "0", "1", "2", "3", "4"]
    assert texts.split() == ["·John", "␣", "a", "n", "d"]
    assert lines[5].split() == ["prompt", "1", "0"]
    assert lines[6].split() == ["·Mary"]
    assert len(lines[5]) == len(lines[2]), "the last tokens stand in one column"


def test_many_tokens_are_cut_into_lines_that_fit(read: Callable[..., Tokens]) -> None:
    text = str(read([CLEAN * 9, "John"]))
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("prompt 1") > 1


def test_the_position_of_a_piece_is_that_of_its_last_token(read: Callable[..., Tokens]) -> None:
    tokens = read(CLEAN)
    for piece in (", John", "Mary", " Mary", "When", "gave", "John and"):
        span = tokens.span(piece)
        held = "".join(tokens.texts[0][span])
        assert piece in held
        assert piece not in "".join(tokens.texts[0][span.start + 1 : span.stop]), "no token too many in front"
        assert tokens.position(piece) == span.stop - 1
    assert tokens.texts[0][tokens.position(", John")] == " John"
    assert read([CORRUPT, CLEAN])[1].position(", John") == tokens.position(", John"), "padding does not count"


def test_a_piece_is_found_where_characters_are_several_tokens(read: Callable[..., Tokens]) -> None:
    tokens = read("東京 John 東")
    assert "\N{REPLACEMENT CHARACTER}" in tokens.texts[0]
    assert tokens.position("京") == 5
    assert tokens.position(" John") == 6


def test_a_tokenizer_without_places_is_searched_by_its_texts(model: ip.Model) -> None:
    class Spelling:
        """One token a word; the text of each can be told, its place cannot."""

        pad_token_id, eos_token_id = 0, 0
        words = ("", "the", " cat", " sat")

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [self.words.index(f" {w}" if i else w) for i, w in enumerate(text.split())]}

        def decode(self, ids: list[int], clean_up_tokenization_spaces: bool = True) -> str:
            assert not clean_up_tokenization_spaces
            return "".join(self.words[i] for i in ids)

    tokens = ip.Model(model.network, tokenizer=Spelling(), info=model.info).tokens("the cat sat")
    assert tokens.texts == (("the", " cat", " sat"),)
    assert tokens.position("cat") == 1


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ("John", "'John' stands 2 times in the prompt, ending at the positions .* for the last write ', John'."),
        ("Bob", f"the prompt has no 'Bob'. The prompt is '{CLEAN}'."),
        ("mary", "the prompt has no 'mary'. It has 'Mary'; capitals count."),
        ("", "the prompt has no ''."),
    ],
)
def test_a_piece_that_is_absent_or_not_one_is_refused(piece: str, message: str, read: Callable[..., Tokens]) -> None:
    with pytest.raises(TraceError, match=rf"^{__file__}:\d+: {message}"):
        read(CLEAN).position(piece)
    if piece == "John":
        assert read(CLEAN).position(", John") == read(CLEAN).lengths[0] - 1 - len(" gave")


def test_a_piece_of_several_prompts_is_refused(read: Callable[..., Tokens]) -> None:
    with pytest.raises(TraceError, match=r"these are 2 prompts, .* Take one of them: tokens\[0\].position\('John'\)"):
        read([CLEAN, CORRUPT]).position("John")


def test_prompts_beside_others_show_what_differs(read: Callable[..., Tokens]) -> None:
    beside = read(CLEAN).beside(read(CORRUPT))
    assert beside.positions() == (read(CLEAN).position(", John"),)
    assert beside.differs.nonzero().tolist() == [[0, beside.positions()[0]]]
    marked = [line.split() for line in str(beside).splitlines() if "≠" in line]
    assert marked == [[str(beside.positions()[0]), "·John", "≠", "·Mary"]]
    ragged = read([CLEAN, "ab"]).beside(read([CORRUPT, "ac"]))
    assert ragged.positions(1) == (1,)
    assert str(ragged).splitlines()[0] == "pair 0"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["abc"], ["abcd"], "the second prompt is longer by 1 token (3 against 4), so positions do not line up."),
        (["abx", "axcde"], ["aby", "abc"], "in pair 1 the first prompt is longer by 2 tokens (5 against 3)"),
        (["axcde"], ["abc"], "They part at position 1: 'x' and 'b'."),
        (["abc"], ["abc", "abc"], "1 prompts cannot be laid beside 2; give as many on either side."),
    ],
)
def test_prompts_that_do_not_line_up_are_refused(
    first: list[str], second: list[str], message: str, read: Callable[..., Tokens]
) -> None:
    with pytest.raises(TraceError) as error:
        read(first).beside(read(second))
    assert message in str(error.value)


def test_a_notebook_shows_tables_in_which_text_stays_text(read: Callable[..., Tokens]) -> None:
    evil = "<script>alert(1)</script>\"'&"
    for shown in (read(evil), read([evil, "John"]), read(evil).beside(read(evil.replace("1", "2")))):
        page = Cells(shown._repr_html_())
        assert not {"script", "img"} & set(page.tags)
        assert any("".join(row[1:]).startswith("<script>alert(") for row in page.rows)
    assert page.marked == ["1", "2"]
    assert Cells(read("John")._repr_html_()).rows[1] == ["token", "John"]


def test_a_notebook_shows_a_block_by_its_graph(model: ip.Model) -> None:
    with model.trace("the cat sat") as t:
        assert "that has not ended" in t._repr_html_()
        model.layers[1].output.save("<b>")
    shown = t._repr_html_()
    assert markup.text(str(t.graph).splitlines()[1].strip()) in shown
    assert "&lt;b&gt;" in shown and "<b>" not in shown
