"""What a name may be, and what is said where it is nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import interpose as ip
from interpose.errors import LoadError
from interpose.loading import cache, placement
from interpose.loading.cards import cards, read


@pytest.mark.parametrize("name", ["smollm2-135m-instrct", "SmolLM2", "gpt2", "zoo/nothing", ""])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(LoadError) as caught:
        ip.load(name)
    text = str(caught.value)
    assert text.startswith(f"There is no model {name!r}. Known by a short name: ")
    assert "smollm2-135m-instruct" in text
    assert "'org/name', for example 'openai-community/gpt2'." in text
    assert "A folder on this machine is written './" in text


def test_the_nearest_names_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from interpose.loading import names

    monkeypatch.setattr(names, "cards", lambda: dict.fromkeys(["boxes", "smollm2-135m-instruct", "othello"]))
    assert "Known by a short name: othello, " in names.unknown("otelo")


def test_a_hub_model_without_network_says_what_was_tried() -> None:
    with pytest.raises(LoadError) as caught:
        ip.load("nobody/nothing")
    text = str(caught.value)
    assert text.startswith("nobody/nothing could not be loaded: its config, looked for in the hub's local cache and on")
    assert text.endswith("For a folder on this machine write ip.load('./folder').")
    assert len(text) < 500


def test_device_map_without_accelerate_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    with pytest.raises(LoadError, match="device_map needs the package accelerate. Write `pip install accelerate`"):
        ip.load("smollm2-135m-instruct", device_map="auto")


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({"dtype": "float33"}, "dtype='float33' is no floating type. Write for example dtype='float32'"),
        ({"dtype": torch.int8}, "dtype=torch.int8 is no floating type."),
        ({"device": "nowhere"}, "device='nowhere' cannot be used here: "),
        ({"device": "cpu", "device_map": "auto"}, "Both device and device_map were given."),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_loading(wishes: dict[str, object], text: str) -> None:
    with pytest.raises(LoadError) as caught:
        ip.load("smollm2-135m-instruct", **wishes)
    assert text in str(caught.value)


def test_wishes_are_understood_in_their_usual_forms() -> None:
    assert placement.placement("torch.float16").dtype == torch.float16
    assert placement.placement(torch.float64).dtype == torch.float64
    assert placement.placement("auto").dtype is None
    assert placement.placement(device="cpu").device == torch.device("cpu")


def test_every_card_is_complete_and_named_as_its_folder() -> None:
    assert "smollm2-135m-instruct" in cards()
    for name, card in cards().items():
        assert card.name == name
        assert card.licence
        if card.wheel is not None:
            assert len(card.wheel.sha256) == len(card.wheel.file_sha256) == 64
            assert "==" in card.wheel.package
        assert card.what.endswith(".")


def test_a_card_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text('name = "x"\ncolour = "red"\n[wheel]\n')
    with pytest.raises(LoadError, match="is not a model card"):
        read(tmp_path / "card.toml")


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERPOSE_HOME", str(tmp_path))
    assert cache.home() == tmp_path
    monkeypatch.delenv("INTERPOSE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.home() == tmp_path / "xdg" / "interpose"


def test_names_and_cards_are_known_without_torch() -> None:
    code = (
        "import sys; import interpose.loading; from interpose.loading.cards import cards; cards(); "
        "from interpose.loading import prepare; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    source = str(Path(next(iter(ip.__path__))).parent)
    assert subprocess.run([sys.executable, "-c", f"import sys; sys.path.append({source!r}); {code}"]).returncode == 0
