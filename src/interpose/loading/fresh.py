"""A fresh network of a known architecture, with random weights, from a config."""

from difflib import get_close_matches
from typing import Any

from interpose.errors import LoadError
from interpose.loading.attention import adapter
from interpose.loading.heads import auto_class
from interpose.loading.opening import opening
from interpose.trace.info import ModelInfo
from interpose.trace.model import Model

_ALIASES = {
    "gpt-2": "gpt2",
    "gptneox": "gpt_neox",
    "neox": "gpt_neox",
    "pythia": "gpt_neox",
    "gemma3": "gemma3_text",
    "gemma-3": "gemma3_text",
    "olmo-2": "olmo2",
    "gpt-j": "gptj",
    "gpt-neo": "gpt_neo",
    "gemma-2": "gemma2",
    "qwen-2": "qwen2",
    "qwen-3": "qwen3",
    "phi-3": "phi3",
}

# The axes of the sites, as each config may call them.
_SIZES = {
    "layers": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_width": ("head_dim",),
    "width": ("hidden_size",),
    "neurons": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
    "vocab": ("vocab_size", "num_labels"),
    "positions": ("max_position_embeddings",),
}


def build(family: str, **config: Any) -> Model:
    """Make a fresh stock network: random weights, in eval mode, trainable, without a tokenizer.

    Seed the weights with `torch.manual_seed`.

    Args:
        family: a transformers `model_type`, such as `gpt2`, `gpt_neox`, `llama`, `gemma3_text` or `bert`.
        **config: settings of that family's config; `layers`, `heads`, `kv_heads`, `head_width`, `width`, `neurons`,
            `vocab` and `positions` work for every family that has them; for images `vocab` is the number of classes.

    Returns:
        a Model around a new network.

    Raises:
        LoadError: there is no such family or no such setting, or the settings do not fit each other.
    """
    network = stock(family, **config)
    kind = str(network.config.model_type)
    return opening(Model(network, info=ModelInfo(name=kind, source="build"), attention=adapter(network)))


def stock(family: str, **config: Any) -> Any:
    """The network of `build`, by itself.

    Args:
        family: a transformers `model_type`.
        **config: its settings.

    Returns:
        a transformers model in eval mode: a causal language model, or what else the family is for (masked words,
        from one text to another, classes of images).

    Raises:
        LoadError: there is no such family or no such setting, or the settings do not fit each other.
    """
    from transformers.models.auto import CONFIG_MAPPING

    kind = _ALIASES.get(family.lower(), family.lower())
    if kind not in CONFIG_MAPPING:
        near = get_close_matches(kind, list(CONFIG_MAPPING.keys()), n=3, cutoff=0.5)
        raise LoadError(
            f"There is no family {family!r}. "
            + (f"Nearest: {', '.join(near)}. " if near else "")
            + "A family is a model_type of transformers, for example gpt2, gpt_neox, llama, gemma3_text or olmo2."
        )
    settings = _settings(kind, CONFIG_MAPPING[kind](), config)
    try:
        made = CONFIG_MAPPING[kind](**settings)
        network = auto_class(made).from_config(made)
    except Exception as error:  # transformers checks settings in many places and ways
        raise LoadError(f"No {kind} can be made with {config}: {_first_line(error)}.") from error
    return network.eval()


def _settings(kind: str, defaults: Any, config: dict[str, Any]) -> dict[str, Any]:
    settings = {}
    for name, value in config.items():
        known = next((found for found in _SIZES.get(name, (name,)) if hasattr(defaults, found)), None)
        if known is None and name != "attn_implementation":
            if _is_implied(name, value, config):
                continue
            sizes = [size for size, found in _SIZES.items() if any(hasattr(defaults, name) for name in found)]
            names = [*sizes, *(found for found in vars(defaults) if not found.startswith("_"))]
            near = get_close_matches(name, names, n=3, cutoff=0.5)
            raise LoadError(f"A {kind} config has no {name!r}." + (f" Nearest: {', '.join(near)}." if near else ""))
        # Under its own name: T5 derives other settings before it looks at the usual ones.
        settings[defaults.attribute_map.get(known or name, known or name)] = value
    shared = next((name for name in _SIZES["kv_heads"] if isinstance(getattr(defaults, name, None), int)), None)
    if shared is not None and not config.keys() & {"kv_heads", shared}:
        heads = config.get("heads", 0)
        if heads % getattr(defaults, shared):  # the config's own number belongs to its own number of heads
            settings[shared] = heads
    return settings


def _is_implied(name: str, value: Any, config: dict[str, Any]) -> bool:
    # Families without these settings have one key/value head a head, and heads as wide as fit into the model's width.
    heads, width = config.get("heads"), config.get("width")
    if heads is None:
        return False
    return (name == "kv_heads" and value == heads) or (name == "head_width" and width == value * heads)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
