"""Pairs from files: what is read from each form, what is written and read back, and what is refused in which words."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import interpose as ip
from interpose.errors import TaskError
from interpose.tasks import _table
from interpose.tasks.base import Pairs, pairs, read_pairs, write_pairs

CLEAN, CORRUPT = "Then Kate saw Paul, and Paul gave it to", "Then Kate saw Paul, and Kate gave it to"
LINE: dict[str, Any] = {"clean": CLEAN, "corrupt": CORRUPT, "answer": " Kate", "wrong": " Paul"}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file: objects as JSON lines, anything else as it is."""

    def written(name: str, *lines: Any) -> Path:
        path = tmp_path / name
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    return written


def words(model: Any, ids: torch.Tensor) -> list[str]:
    return [model.tokenizer.decode([token]) for token in ids.tolist()]


def at(model: Any, made: Pairs, role: str) -> list[str]:
    """The token that a role stands at, in each clean prompt."""
    rows = torch.arange(len(made))
    return words(model, made.clean_tokens[rows, made.roles[role]])


def test_the_public_names_are_these_functions() -> None:
    assert ip.read_pairs is read_pairs
    assert ip.write_pairs is write_pairs


# --------------------------------------------------------------------------------------------------------- JSON lines


def test_json_lines_are_what_pairs_makes_of_the_same_texts(model: Any, write: Write) -> None:
    other = {**LINE, "clean": "Last " + CLEAN, "corrupt": "Last " + CORRUPT}
    path = write("mine.jsonl", LINE, "", other)
    made = read_pairs(model, path)
    wanted = pairs(model, [CLEAN, other["clean"]], [CORRUPT, other["corrupt"]], [" Kate"] * 2, [" Paul"] * 2)
    for name in ("clean_tokens", "corrupt_tokens", "mask", "answers", "wrong"):
        assert torch.equal(getattr(made, name), getattr(wanted, name))
    assert (made.clean, made.corrupt, dict(made.roles)) == (wanted.clean, wanted.corrupt, {})
    assert (made.info["task"], made.info["counterfactual"], made.info["n"]) == ("mine.jsonl", "corrupt", 2)
    assert re.fullmatch("[0-9a-f]{16}", made.info["sha256"])
    path.write_text(path.read_text().replace("Last", "Then"))
    assert read_pairs(model, path).info["sha256"] != made.info["sha256"]


def test_roles_are_words_or_characters_and_count_from_the_last_token(model: Any, write: Write) -> None:
    second = CLEAN.rindex("Paul")
    roles = {"io": "Kate", "s2": [second, second + 4], "both": [CLEAN.index("Kate"), CLEAN.index("Paul") + 4]}
    longer = "Then " + CLEAN
    shifted = {name: where if isinstance(where, str) else [edge + 5 for edge in where] for name, where in roles.items()}
    made = read_pairs(
        model,
        write(
            "mine.jsonl",
            {**LINE, "roles": roles},
            {**LINE, "clean": longer, "corrupt": "Then " + CORRUPT, "roles": shifted},
        ),
    )
    assert at(model, made, "io") == [" Kate"] * 2
    assert at(model, made, "s2") == at(model, made, "both") == [" Paul"] * 2
    assert made.roles["s2"].tolist() == [-4, -4]
    assert made.roles["both"][0] < made.roles["s2"][0] < 0


def test_a_mark_at_the_start_and_other_line_ends_are_read(model: Any, tmp_path: Path) -> None:
    odd = {**LINE, "clean": CLEAN + "\u2028", "corrupt": CORRUPT + "\u2028"}
    lines = [json.dumps(LINE), json.dumps(odd, ensure_ascii=False)]
    (tmp_path / "dos.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert read_pairs(model, tmp_path / "dos.jsonl").clean == (CLEAN, odd["clean"])


texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc",)) | st.sampled_from('\n\t"\\\u2028'), min_size=1, max_size=12
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_written_is_read_back(model: Any, tmp_path: Path, data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 4))
    fronts = data.draw(st.lists(texts, min_size=size, max_size=size))
    made = pairs(
        model,
        clean=[f"{front} Kate saw Paul" for front in fronts],
        corrupt=[f"{front} Paul saw Kate" for front in fronts],
        answers=[" Kate"] * size,
        wrong=[" Paul"] * size,
    )
    places = data.draw(st.lists(st.integers(-3, -1), min_size=size, max_size=size))
    made = ip.Pairs(**{**vars(made), "roles": {"some": torch.tensor(places), "last": torch.full((size,), -1)}})
    again = read_pairs(model, write_pairs(model, made, tmp_path / "x.jsonl"))
    assert (again.clean, again.corrupt) == (made.clean, made.corrupt)
    for name in ("clean_tokens", "corrupt_tokens", "mask", "answers", "wrong"):
        assert torch.equal(getattr(again, name), getattr(made, name))
    assert {role: where.tolist() for role, where in again.roles.items()} == {"some": places, "last": [-1] * size}


def test_a_task_can_be_written_and_read_back(model: Any, tmp_path: Path) -> None:
    made = ip.tasks.IOI().pairs(model, n=20)
    again = read_pairs(model, write_pairs(model, made, tmp_path / "ioi.jsonl"))
    assert torch.equal(again.clean_tokens, made.clean_tokens)
    assert torch.equal(again.answers, made.answers)
    assert {role: where.tolist() for role, where in again.roles.items()} == {
        role: where.tolist() for role, where in made.roles.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["ioi.jsonl"]


def test_what_cannot_be_written_is_refused(model: Any, trained: Callable[..., Any], tmp_path: Path) -> None:
    made = pairs(model, [CLEAN], [CORRUPT], [" Kate"], [" Paul"])
    with pytest.raises(TaskError, match=r"x.json ends in '.json'; pairs are written as JSON lines: end .* in .jsonl"):
        write_pairs(model, made, tmp_path / "x.json")
    with pytest.raises(TaskError, match="Nothing can be written to .*none/x.jsonl: No such file or directory"):
        write_pairs(model, made, tmp_path / "none" / "x.jsonl")
    half = model.tokenizer("\N{SNOWMAN}")["input_ids"][0]
    broken = ip.Pairs(**{**vars(made), "answers": torch.tensor([half])})
    with pytest.raises(TaskError, match=f"Pair 0: its answer is the token {half}, which no text gives again"):
        write_pairs(model, broken, tmp_path / "x.jsonl")
    many = pairs(model, ["\N{SNOWMAN} Kate"], ["\N{SNOWMAN} Paul"], [" Kate"], [" Paul"])
    within = ip.Pairs(**{**vars(many), "roles": {"part": torch.tensor([-3])}})
    with pytest.raises(TaskError, match="Pair 0: the role 'part' is a token without characters of its own at -3"):
        write_pairs(model, within, tmp_path / "x.jsonl")
    assert not any(tmp_path.iterdir())


SHORT = {**LINE, "corrupt": "Then Kate saw Paul, and Kate to"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"mine.jsonl:2: this is not JSON \(Expecting property name.*\). Write one JSON object on each line."),
        ("[" * 100_000, r"mine.jsonl:2: this is not JSON \(.*\)"),
        ('{"clean": 1' + "0" * 5000 + "}", r"mine.jsonl:2: this is not JSON \(Exceeds the limit"),
        ([1, 2], "mine.jsonl:2: this is a list; expected an object with 'clean', 'corrupt', 'answer', 'wrong'."),
        (
            {"clean": CLEAN, "wrong": " Paul"},
            "mine.jsonl:2: 'corrupt', 'answer' missing; expected the fields 'clean', 'corrupt', 'answer', 'wrong'.",
        ),
        (
            {**LINE, "role": {}},
            "mine.jsonl:2: there is no field 'role'. Did you mean 'roles'. Expected 'clean', .*and, if you like, 'rol",
        ),
        ('{"clean": "a", "clean": "b"}', "mine.jsonl:2: the field 'clean' stands there twice; expected it once."),
        ({**LINE, "clean": 7}, "mine.jsonl:2: 'clean' is 7, of type int; expected a text."),
        ({**LINE, "answer": [" Kate"] * 30}, r"mine.jsonl:2: 'answer' is \[' Kate', .{,60}\.\.\., of type list;"),
        ({**LINE, "wrong": ""}, "mine.jsonl:2: 'wrong' is empty; expected a text of at least one token."),
        ({**LINE, "clean": "a" * 100_001}, "mine.jsonl:2: 'clean' has 100,001 characters; expected at most 100,000."),
        ({**LINE, "clean": "a \ud800 b"}, r"mine.jsonl:2: 'clean' holds half a character \(a lone surrogate\) at 2;"),
        ({**LINE, "answer": "Kate"}, r"mine.jsonl:2: 'answer' = 'Kate' is \d tokens .* write ' Kate'\."),
        ({**LINE, "wrong": " Kate"}, r"mine.jsonl:2: 'answer' = ' Kate' and 'wrong' = ' Kate' are the same token \("),
        (
            SHORT,
            r"mine.jsonl:2: this pair does not align: its clean prompt has 12 tokens and its corrupt prompt 10.\n"
            r" +clean +corrupt\n(?s:.*)Change the words",
        ),
        ({**LINE, "roles": ["io"]}, "mine.jsonl:2: 'roles' is a list; expected an object from names to words."),
        ({**LINE, "roles": {"io": 3}}, r"mine.jsonl:2: the role 'io' is 3; expected a word of .* as \[start, stop\]\."),
        ({**LINE, "roles": {"io": [1, True]}}, r"the role 'io' is \[1, True\]; expected a word"),
        (
            {**LINE, "roles": {"io": "Paul"}},
            r"mine.jsonl:2: the role 'io' is the word 'Paul', found 2 times in the clean prompt; expected once. W",
        ),
        ({**LINE, "roles": {"io": "Kat"}}, "the role 'io' is the word 'Kat', found 0 times"),
        (
            {**LINE, "roles": {"io": [3, 99]}},
            r"mine.jsonl:2: the role 'io' is the characters \[3, 99\]; expected 0 <= start < stop <= 39",
        ),
        ({**LINE, "roles": {"io": [3, 3]}}, r"the role 'io' is the characters \[3, 3\]"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(line: Any, said: str, model: Any, write: Write) -> None:
    good = {**LINE, "roles": {"io": "Kate"}} if isinstance(line, dict) and "roles" in line else LINE
    path = write("mine.jsonl", good, line)
    with pytest.raises(TaskError, match=said) as error:
        read_pairs(model, path)
    assert str(error.value).startswith(str(path))


def test_pairs_that_do_not_suit_are_left_out_where_that_is_asked_for(model: Any, write: Write) -> None:
    bad = [SHORT, {**LINE, "answer": " Kate Kate"}, {**LINE, "wrong": " xqzvj"}, {**LINE, "wrong": " Kate"}]
    path = write("mine.jsonl", *bad[:2], LINE, *bad[2:], {**LINE, "clean": CORRUPT, "corrupt": CLEAN})
    with pytest.warns(
        UserWarning, match=r"mine.jsonl: 4 of 6 pairs do not suit .* the first of them at .*mine.jsonl:1\."
    ):
        made = read_pairs(model, path, leave_out=True)
    assert made.clean == (CLEAN, CORRUPT)
    assert (made.info["n"], made.info["notes"][0].split(": ")[1][:12]) == (2, "4 of 6 pairs")
    for number, line in enumerate(bad):
        one = write(f"{number}.jsonl", line)
        with pytest.raises(
            TaskError, match=r"1 of 1 pairs do not suit this tokenizer, so none is left. Read the file w"
        ):
            read_pairs(model, one, leave_out=True)
    good = write("good.jsonl", LINE)
    assert read_pairs(model, good, leave_out=True).info == read_pairs(model, good).info


def test_lines_with_other_roles_are_refused(model: Any, write: Write) -> None:
    path = write("mine.jsonl", {**LINE, "roles": {"io": "Kate"}}, LINE)
    with pytest.raises(TaskError, match=r"mine.jsonl:2: its roles are none, but those of .*mine.jsonl:1 are io; expec"):
        read_pairs(model, path)


def test_roles_are_found_without_the_characters_of_tokens_but_cannot_be_written(
    model: Any, write: Write, tmp_path: Path
) -> None:
    class Slow:
        unk_token_id = eos_token_id = None

        def __call__(self, *given: Any, **options: Any) -> Any:
            return model.tokenizer(*given, **options)

        def decode(self, *given: Any, **options: Any) -> str:
            return model.tokenizer.decode(*given, **options)

    slow, second = SimpleNamespace(tokenizer=Slow()), CLEAN.rindex("Paul")
    path = write("mine.jsonl", {**LINE, "roles": {"io": "Kate", "s2": [second, second + 4]}})
    made, wanted = read_pairs(slow, path), read_pairs(model, path)
    assert {role: where.tolist() for role, where in made.roles.items()} == {
        role: where.tolist() for role, where in wanted.roles.items()
    }
    with pytest.raises(TaskError, match="which Slow does not give. Use a fast tokenizer, or write the pairs without r"):
        write_pairs(slow, made, tmp_path / "x.jsonl")


# --------------------------------------------------------------------------------------------------------------- files


def test_a_file_that_cannot_be_read_is_named(
    model: Any, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TaskError, match=r"none.jsonl does not exist or is no plain file; expected a file of pairs"):
        read_pairs(model, tmp_path / "none.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(TaskError, match=r"folder.jsonl is a folder, not a file"):
        read_pairs(model, tmp_path / "folder.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(TaskError, match=r"pipe.jsonl does not exist or is no plain file"):
        read_pairs(model, tmp_path / "pipe.jsonl")
    with pytest.raises(TaskError, match=r"a.txt ends in '.txt'; expected a file of pairs: .jsonl, .json, .csv"):
        read_pairs(model, write("a.txt", LINE))
    (tmp_path / "latin.jsonl").write_bytes(b"\n\n\xe9")
    with pytest.raises(TaskError, match=r"latin.jsonl:3: this is not UTF-8 text \(unexpected end of data\). Save"):
        read_pairs(model, tmp_path / "latin.jsonl")
    for name in ("empty.jsonl", "empty.csv"):
        with pytest.raises(TaskError, match=f"{name} holds no pair; expected at least one"):
            read_pairs(model, write(name, ""))
    monkeypatch.setattr(_table, "MOST_PAIRS", 2)
    with pytest.raises(TaskError, match="many.jsonl holds more than 2 pairs, the most there may be. Split it."):
        read_pairs(model, write("many.jsonl", LINE, LINE, LINE))
    monkeypatch.setattr(_table, "MOST_BYTES", 100)
    with pytest.raises(TaskError, match="large.jsonl is larger than 0 MB, the most that a file of pairs may have"):
        read_pairs(model, write("large.jsonl", LINE))


# -------------------------------------------------------------------------------------------------------- auto-circuit

PROMPT = {"clean": CLEAN, "corrupt": CORRUPT, "answers": [" Kate"], "wrong_answers": [" Paul"]}


def test_auto_circuit_files_are_read_and_words_become_roles(model: Any, write: Write) -> None:
    number = len(model.tokenizer("Then")["input_ids"])  # the token after it
    labels = [f"label {place}" for place in range(len(model.tokenizer(CLEAN)["input_ids"]))]
    document = {"prompts": [PROMPT] * 2, "word_idxs": {"io": number, "last": len(labels) - 1}, "seq_labels": labels}
    made = read_pairs(model, write("theirs.json", document))
    assert words(model, made.answers) == [" Kate"] * 2
    assert words(model, made.wrong) == [" Paul"] * 2
    assert at(model, made, "io") == [" Kate"] * 2
    assert made.roles["last"].tolist() == [-1, -1]
    assert read_pairs(model, write("bare.json", {"prompts": [PROMPT]})).roles == {}


def test_numbers_of_tokens_do_not_count_special_ones(model: Any, write: Write) -> None:
    document = {"prompts": [PROMPT], "word_idxs": {"io": 1}}
    plain = read_pairs(model, write("theirs.json", document))
    backend = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    backend.post_processor = TemplateProcessing(single="<e> $A <e>", special_tokens=[("<e>", 0)])
    marked = SimpleNamespace(tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>"))
    made = read_pairs(marked, write("theirs.json", document))
    assert made.clean_tokens.shape[1] == plain.clean_tokens.shape[1] + 2
    assert at(marked, made, "io") == at(model, plain, "io")


def test_of_several_answers_the_first_are_compared_and_a_warning_says_so(model: Any, write: Write) -> None:
    several = {**PROMPT, "wrong_answers": [" Paul", " Ian", " Mary"]}
    with pytest.warns(UserWarning, match=r"up to 3 answers or wrong answers a prompt. The first answer is compared wi"):
        made = read_pairs(model, write("theirs.json", {"prompts": [PROMPT, several]}))
    assert words(model, made.wrong) == [" Paul"] * 2
    assert "up to 3 answers" in made.info["notes"][0]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ('{"prompts":\n [}', r"theirs.json:2: this is not JSON \(Expecting value"),
        ("[" * 100_000, r"theirs.json: this is not JSON that can be read \("),
        ([PROMPT], r'theirs.json: this is a list; expected {"prompts": .*JSON lines end in .jsonl.'),
        ('{"prompts": [], "prompts": []}', "theirs.json: the field 'prompts' stands there twice"),
        ({"prompt": [PROMPT]}, "theirs.json: there is no list 'prompts'; expected {"),
        ({"prompts": []}, "theirs.json holds no pair"),
        ({"prompts": [7]}, r"theirs.json: prompts\[0\]: this is a int; expected an object"),
        ({"prompts": [PROMPT, {"clean": "a"}]}, r"theirs.json: prompts\[1\]: 'answers' is missing; expected 'clean', "),
        ({"prompts": [{**PROMPT, "answers": " Kate"}]}, r"prompts\[0\]: 'answers' is no list of at least one text"),
        ({"prompts": [{**PROMPT, "answers": [7]}]}, r"prompts\[0\]: 'answers\[0\]' is 7, of type int; expected a text"),
        ({"prompts": [{**PROMPT, "clean": [[1, 2]]}]}, r"prompts\[0\]: 'clean' is a list of token ids, which belong"),
        (
            {"prompts": [{**PROMPT, "answers": ["Kate"]}]},
            r"theirs.json: prompts\[0\]: answers\[0\] = 'Kate' is \d tokens",
        ),
        ({"prompts": [PROMPT], "word_idxs": {"io": "Kate"}}, "theirs.json: word_idxs: expected an object from names"),
        ({"prompts": [PROMPT], "word_idxs": {"io": 40}}, r"theirs.json: word_idxs\['io'\]: 40 is no token of a prompt"),
        (
            {"prompts": [PROMPT, {**PROMPT, "clean": "Then " + CLEAN}], "word_idxs": {"io": 1}},
            r"prompts\[1\]: the clean prompt has 14 tokens of this tokenizer; expected 12, as many as the first, since",
        ),
        (
            {"prompts": [PROMPT], "word_idxs": {"io": 1}, "seq_labels": ["a", "b"]},
            r"expected 2, as many as 'seq_labels', .* or take 'word_idxs' out of the file",
        ),
    ],
)
def test_a_bad_auto_circuit_file_is_refused(document: Any, said: str, model: Any, write: Write) -> None:
    with pytest.raises(TaskError, match=said):
        read_pairs(model, write("theirs.json", document))


# -------------------------------------------------------------------------------------------------------------- EAP-IG


def token(model: Any, word: str) -> int:
    (found,) = model.tokenizer(word)["input_ids"]
    return found


def test_csv_with_texts_and_two_counterfactuals(model: Any, write: Write) -> None:
    other = CLEAN.replace("Kate", "Mary")
    lines = ["clean,corrupted,corrupted_hard,answer,wrong", f'"{CLEAN}","{CORRUPT}","{other}", Kate, Paul']
    path = write("mine.csv", *lines)
    assert read_pairs(model, path).corrupt == (CORRUPT,)
    hard = read_pairs(model, path, counterfactual="corrupted_hard")
    assert (hard.corrupt, hard.info["counterfactual"]) == ((other,), "corrupted_hard")
    assert words(model, hard.answers) + words(model, hard.wrong) == [" Kate", " Paul"]
    with pytest.raises(TaskError, match=r"has no counterfactual 'abc'; expected one of corrupted, corrupted_hard\."):
        read_pairs(model, path, counterfactual="abc")


def test_token_ids_of_names_are_taken_where_the_names_are_in_the_prompt(model: Any, write: Write) -> None:
    kate, paul = token(model, " Kate"), token(model, " Paul")
    made = read_pairs(
        model, write("ioi.csv", ",clean,corrupted,correct_idx,incorrect_idx", f'7,"{CLEAN}","{CORRUPT}",{kate},{paul}')
    )
    assert (made.answers.tolist(), made.wrong.tolist()) == ([kate], [paul])


def test_ids_that_a_column_of_text_explains(model: Any, write: Write) -> None:
    kate, paul = token(model, " Kate"), token(model, " Paul")
    header = "clean,country,country_idx,corrupted,corrupted_country,corrupted_country_idx"
    path = write("facts.csv", header, f"Then Kate saw,Kate Ross,{kate},Then Paul saw,Paul,{paul}")
    made = read_pairs(model, path)
    assert (made.answers.tolist(), made.wrong.tolist()) == ([kate], [paul])
    header = "clean,answers,answers_idx,corrupted,corrupted_answers,corrupted_answers_idx"
    line = f"""Then,"['Kate', 'Mary']","[{kate}, 9]",Once,"['Paul']","[{paul}]\""""
    with pytest.warns(UserWarning, match="Where several tokens are right, the first is taken"):
        made = read_pairs(model, write("kinds.csv", header, line))
    assert (made.answers.tolist(), made.wrong.tolist()) == ([kate], [paul])


def test_ids_that_nothing_explains_are_taken_with_a_warning(model: Any, write: Write) -> None:
    ids = f"{token(model, ' Kate')},{token(model, ' Paul')}"
    path = write("g.csv", "clean,corrupted,clean_answer_idx,corrupted_answer_idx,label", f"Then,Once,{ids},0")
    with pytest.warns(UserWarning, match=r"g.csv: nothing in the file says .* Here they read ' Kate' and ' Paul' in t"):
        made = read_pairs(model, path)
    assert words(model, made.answers) == [" Kate"]


@pytest.fixture(scope="module")
def digits(trained: Callable[..., PreTrainedTokenizerFast]) -> SimpleNamespace:
    """A tokenizer in which two digits are one token."""
    numbers = [f"{number:02d}" for number in range(100)]
    return SimpleNamespace(tokenizer=trained([*numbers * 3, "The war went from to it are is dogs " * 3], size=800))


@pytest.mark.parametrize("column", ["label", "correct_idx"])
def test_what_is_greater_than_a_number_is_right(column: str, digits: Any, write: Write) -> None:
    rows = [("52", "76", "26"), ("3", "51", "01"), ("98", "99", "49"), ("0", "50", "00")]
    lines = [f"The war went from 17 {int(n):02d} to 17,The war went from 17 01 to 17,{n}" for n, _, _ in rows]
    with pytest.warns(UserWarning, match="half way up to 99 .* in the first pair 76 with 26"):
        made = read_pairs(digits, write("gt.csv", f"clean,corrupted,{column}", *lines))
    assert words(digits, made.answers) == [right for _, right, _ in rows]
    assert words(digits, made.wrong) == [wrong for _, _, wrong in rows]


def test_verbs_agree_with_their_subject(model: Any, write: Write, trained: Callable[..., Any]) -> None:
    verbs = SimpleNamespace(tokenizer=trained(["The dog the dogs are is"] * 5, size=400))
    path = write("sva.csv", "clean,corrupted,group,plural", "The dogs,The dog,simple,1", "The dog,The dogs,simple,0")
    with pytest.warns(UserWarning, match='" are" is compared with " is"'):
        made = read_pairs(verbs, path)
    assert words(verbs, made.answers) == [" are", " is"]
    assert words(verbs, made.wrong) == [" is", " are"]


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        (
            "clean,wrong",
            "a,b",
            "x.csv:1: the columns are 'clean', 'wrong'; expected 'clean' and 'corrupted' among them",
        ),
        ("clean,corrupted", "a,b", "x.csv:1: none of the columns 'clean', 'corrupted' says which answers are right; "),
        ("clean,clean,corrupted", "a,b,c", "x.csv:1: the column 'clean' stands there twice"),
        ("clean,corrupted,label", "a,b", "x.csv:2: this record has 2 values; expected 3, as the header"),
        ("clean,corrupted,label", '"a,b,c', r"x.csv:2: this is no CSV \(unexpected end of data\)"),
        ("clean,corrupted,label", 'a,b,"c"d', r"x.csv:2: this is no CSV \("),
        ("clean,corrupted,label", "a" * 200_000 + ",b,c", r"x.csv:2: this is no CSV \(field larger than field limit"),
        ("clean,corrupted,label", '"a\nb",c,5\nd,e,f', "x.csv:2: 'label' is 5; expected a number from 0 to 98 that "),
        ("clean,corrupted,label", '"a 05\nb",c,5\nd,e,f', "x.csv:4: 'label' is 'f'; expected a whole number"),
        ("clean,corrupted,label", "17 99,17 01,99", "x.csv:2: 'label' is 99; expected a number from 0 to 98"),
        ("clean,corrupted,plural", "a,b,2", "x.csv:2: 'plural' is '2'; expected 0 or 1"),
        ("clean,corrupted,answer,wrong", "a,b,,c", "x.csv:2: 'answer' is empty"),
        (
            "clean,corrupted,correct_idx,incorrect_idx",
            "a,b,99999999,5",
            "x.csv:2: 'correct_idx' is 99999999; this model's tokenizer has ids from 0 to",
        ),
        (
            "clean,corrupted,correct_idx,incorrect_idx",
            "a,b,-5,5",
            "x.csv:2: 'correct_idx' is '-5'; expected a whole nu",
        ),
        (
            "clean,corrupted,correct_idx,incorrect_idx",
            f"{CLEAN.replace(',', '')},b,KATE,MARY",
            r"x.csv:2: 'incorrect_idx' is \d+, which is ' Mary' for this model's tokenizer and is not in the clean pro",
        ),
        (
            "clean,corrupted,correct_idx,incorrect_idx",
            "a,b,0,5",
            "x.csv:2: 'correct_idx' is 0, which is '<e>' .* is not in the clean prompt. The file was written for anot",
        ),
        (
            "clean,corrupted,correct_idx,incorrect_idx",
            "a,b,HALF,5",
            "x.csv:2: 'correct_idx' is .*, no text that gives it again. The file was written for another tokenizer",
        ),
        (
            "clean,corrupted,country,corrupted_country,country_idx,corrupted_country_idx",
            "a,b,Kate,Paul,KATE,MARY",
            "x.csv:2: 'corrupted_country_idx' .* is ' Mary' .* is not in 'corrupted_country' of this line",
        ),
        (
            "clean,corrupted,answers,corrupted_answers,answers_idx,corrupted_answers_idx",
            "a,b,c,d,[],[5]",
            r"x.csv:2: 'answers_idx' is \[\]; expected a list of at least one token id",
        ),
        (
            "clean,corrupted,answers,corrupted_answers,answers_idx,corrupted_answers_idx",
            "a,b,c,d,[__import__('os')],[5]",
            r"x.csv:2: 'answers_idx' is no list of token ids \(Expecting value",
        ),
    ],
)
def test_a_bad_csv_is_refused(header: str, line: str, said: str, model: Any, write: Write) -> None:
    ids = {"KATE": " Kate", "MARY": " Mary"}
    for name, word in ids.items():
        line = line.replace(name, str(token(model, word)))
    line = line.replace("HALF", str(model.tokenizer("\N{SNOWMAN}")["input_ids"][0]))
    with pytest.raises(TaskError, match=said):
        read_pairs(model, write("x.csv", header, line))
