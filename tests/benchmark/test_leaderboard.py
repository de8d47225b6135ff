"""Published numbers and presets: names that exist, numbers that are the source's."""

from interpose import discovery
from interpose.benchmark.presets import PRESETS
from interpose.benchmark.published import _rows, published
from interpose.models.stream import StreamGraph

MIB = "https://arxiv.org/abs/2504.13151"


def test_published_numbers_stand_beside_the_same_model_task_and_method() -> None:
    found = published("openai-community/gpt2", "ioi", "eap-ig")
    assert found is not None
    assert (found.cpr, found.cmd, found.as_published) == (1.85, 0.03, "EAP-IG-inputs (CF)")
    assert MIB in found.source
    assert published("google/gemma-2-2b", "mcqa", "attribution-patching") is not None
    assert published("gpt2", "ioi", "eap") != published("gpt2", "ioi", "eap:ablation=mean")
    assert published("smollm2-135m-instruct", "ioi", "eap-ig") is None
    assert published("gpt2", "ioi", "eap-ig:steps=20") is None


def test_published_methods_and_the_tasks_of_presets_are_ones_that_exist() -> None:
    for name in {each.method for each in _rows().values()}:
        method, _, settings = name.partition(":")
        fields = discovery.load("interpose.methods", method).__dataclass_fields__
        assert {part.partition("=")[0] for part in settings.split(",") if part} <= set(fields), name
    for preset in PRESETS.values():
        for task in (task for tasks in preset.models.values() for task in tasks):
            assert discovery.find("interpose.tasks", task).name == task


def test_a_useless_ranking_was_published_at_a_quarter_and_three_quarters() -> None:
    """What follows from the sizes alone: faithfulness 0 up to half of the edges, then a straight line to 1."""
    random = [each for each in _rows().values() if each.method == "random"]
    assert len(random) > 8
    for each in random:
        assert each.cpr is None or 0.24 <= each.cpr <= 0.33
        assert each.cmd is None or 0.67 <= each.cmd <= 0.76


def test_published_numbers_are_of_the_models_and_tasks_of_the_paper() -> None:
    models = {model.rpartition("/")[2].lower() for model in PRESETS["paper"].models}
    assert {each.model for each in _rows().values()} == models | {"interpbench"}
    asked = {(m.rpartition("/")[2].lower(), task) for m, tasks in PRESETS["paper"].models.items() for task in tasks}
    known = {(each.model, each.task) for each in _rows().values()}
    assert asked <= known


def test_the_sizes_of_the_papers_models_are_those_of_its_edges() -> None:
    """The graphs behind the published numbers have as many edges as ours."""
    assert StreamGraph(12, 12).n_edges == 32_491
    assert StreamGraph(24, 14).n_edges == 179_749
    assert StreamGraph(26, 8).n_edges == 74_218
    assert StreamGraph(32, 32).n_edges == 1_592_881
