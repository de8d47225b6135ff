"""The command line: quick help, lists made from docstrings, one message for a failure, exit codes that mean it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import interpose
from interpose import discovery
from interpose.cli.main import main
from interpose.errors import LoadError, UsageError

COMMANDS = [entry.name for entry in discovery.entries("interpose.cli")]
LISTS = ["mediators", "methods", "models", "tasks"]
SOURCE = Path(interpose.__file__).parent

CHILD = """
import sys, time
from interpose.cli.main import main
code = main(sys.argv[1:])
print(code, time.process_time(), *sys.modules, file=sys.stderr)
"""


def child(*words: str, code: str = CHILD) -> tuple[int, float, set[str]]:
    """Exit code, seconds of CPU and loaded modules of `interpose WORDS` in a process of its own."""
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=True)
    returned, seconds, *modules = run.stderr.splitlines()[-1].split()
    return int(returned), float(seconds), set(modules)


def fake(monkeypatch: pytest.MonkeyPatch, failure: BaseException | None) -> None:
    """Makes every command one that does nothing, or fails so."""

    @dataclass(frozen=True)
    class Fake:
        """Do nothing."""

        times: int = 1
        json: bool = False

        def run(self) -> None:
            if failure is not None:
                raise failure

    monkeypatch.setattr("interpose.discovery.load", lambda package, name: Fake)


# ------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help_is_quick_and_loads_no_torch(words: list[str]) -> None:
    code, seconds, modules = min((child(*words) for _ in range(2)), key=lambda result: result[1])
    assert code == 0
    assert not modules & {"torch", "transformers", "numpy", "matplotlib"}
    # Seconds of CPU, not of the clock, which depends on what else this machine is doing.
    assert seconds < 0.5


def test_the_test_for_torch_can_fail() -> None:
    _, _, modules = child("--help", code="import torch\n" + CHILD)
    assert "torch" in modules


@pytest.mark.parametrize("what", LISTS)
def test_listing_loads_no_torch(what: str) -> None:
    code, _, modules = child(what)
    assert code == 0
    assert "torch" not in modules


def test_help_shows_every_command_with_what_it_does_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for entry in discovery.entries("interpose.cli"):
        assert f"{entry.name} " in shown
        assert entry.summary in shown
        assert f"  interpose {entry.name}" in shown.partition("Examples:")[2]
    assert "Exit codes: 0 done, 1 the job failed, 2 wrong use." in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_its_docstring_its_options_and_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert discovery.find("interpose.cli", command).summary in shown.replace("\n", " ")
    assert "--json" in shown
    assert f"Examples:\n  interpose {command}" in shown


def test_no_words_at_all_are_wrong_use_and_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Usage: interpose COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"interpose {interpose.__version__}\n"


# ------------------------------------------------------------------------------------------------------------ lists


@pytest.mark.parametrize("what", ["mediators", "methods", "tasks"])
def test_a_list_holds_every_file_and_an_explanation_its_whole_docstring(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([what, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    files = {path.stem for path in (SOURCE / what).glob("*.py") if path.stem != "base" and path.stem[0] != "_"}
    assert {row["name"] for row in listed} == {stem.replace("_", "-") for stem in files}
    assert main([what]) == 0
    shown = capsys.readouterr().out
    for row in listed:
        assert row["name"] in shown
        assert main([what, row["name"], "--json"]) == 0
        explained = json.loads(capsys.readouterr().out)
        assert {**explained, "doc": ""} == {**row, "doc": ""}
        assert explained["doc"].startswith(explained["doc"].splitlines()[0])
        assert row["summary"] in explained["doc"]
        assert main([what, row["name"]]) == 0
        assert row["summary"].split()[0] in capsys.readouterr().out


def test_models_lists_every_card_and_every_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    cards = {path.parent.name for path in (SOURCE / "zoo").glob("*/card.toml")}
    families = {path.stem for path in (SOURCE / "models").glob("*.py") if "\nFAMILY = Family(" in path.read_text()}
    assert {name for name, row in listed.items() if row["kind"] == "model"} == cards
    assert {name for name, row in listed.items() if row["kind"] == "architecture"} == {
        family.replace("_", "-") for family in families
    }
    default = listed["smollm2-135m-instruct"]
    assert default["licence"] == "Apache-2.0"
    assert default["note"] == "4-bit, dequantised"
    assert default["parameters"] == 134_515_008


def test_the_model_types_of_a_family_are_those_of_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    from interpose.models import families

    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    shown = {name for row in rows if row["kind"] == "architecture" for name in row["model types"].split(", ")}
    assert shown == set(families())


def test_one_model_is_explained_with_how_to_load_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "smollm2-135m-instruct"]) == 0
    shown = capsys.readouterr().out
    assert "4-bit, dequantised" in shown
    assert "Load it with `interpose.load('smollm2-135m-instruct')`." in shown


def test_output_for_a_reader_that_has_gone_is_no_error() -> None:
    program = "import sys; from interpose.cli.main import main; sys.exit(main(['methods', '--json']))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()
        assert run.stderr.read() == b""
        assert run.wait(timeout=60) == 0


# ------------------------------------------------------------------------------------------- failures and exit codes


def test_a_job_that_is_done_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, None)
    assert main(["anything", "--times", "2"]) == 0


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (LoadError("no such model"), 1, "interpose: no such model\n"),
        (UsageError("no such method"), 2, "interpose: no such method\n"),
        (KeyboardInterrupt(), 130, "interpose: stopped.\n"),
        (
            ValueError("three"),
            1,
            "interpose: ValueError: three\n"
            "This was not foreseen. Run the same command with --debug to see where it comes from.\n",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_is_one_message_and_an_exit_code(
    failure: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, failure)
    assert main(["anything"]) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize("words", [["--debug", "anything"], ["anything", "--debug"]], ids=" ".join)
def test_debug_shows_where_an_error_comes_from(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, LoadError("no such model"))
    assert main(words) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert shown.endswith("interpose: no such model\n")


def test_with_json_a_failure_is_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake(monkeypatch, LoadError("no such model"))
    assert main(["anything", "--json"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert json.loads(written.err) == {"error": "LoadError", "message": "no such model"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method"], "there is no command called 'method'. Did you mean 'methods'? There are: "),
        (["methods", "eap-igg"], "there is no method called 'eap-igg'. Did you mean 'eap-ig'? There are: "),
        (
            ["models", "nonsense"],
            "there is no model or architecture called 'nonsense'. There are: comparison-siit, ",
        ),
        (
            ["--quiet"],
            "--quiet is not an option of interpose itself: a command comes first, as in `interpose locate ioi`.",
        ),
        (["methods", "--jsno"], "Unrecognized options: --jsno"),
        (["methods", "eap", "eap-ig"], "Unrecognized options: eap-ig"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_exits_with_2_and_says_what_there_is(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert message in written.err


def test_a_value_that_cannot_be_read_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, None)
    assert main(["anything", "--times", "x"]) == 2
    assert "Error parsing --times" in capsys.readouterr().err
