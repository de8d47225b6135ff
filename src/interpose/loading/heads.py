"""Which class a config stands for: a causal language model, text to text, masked words, classes of images, none."""

from typing import Any

from interpose.models import find

# Each kind of network, by the class that makes it and the list of what that class makes of each family.
_KINDS = {
    "causal-lm": ("AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"),
    "seq2seq-lm": ("AutoModelForSeq2SeqLM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"),
    "masked-lm": ("AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
    "image-classification": ("AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    "bare": ("AutoModel", "MODEL_MAPPING_NAMES"),
}


def auto_class(config: Any) -> Any:
    """The class that makes a network from a config or from files.

    Args:
        config: a config of transformers. Where its files say which class wrote them (`architectures`), a kind of
            network that makes this class is taken; else the usual one of its family.

    Returns:
        one of the Auto classes.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    family = find(config.model_type)
    usual = family.head if family is not None else "causal-lm"
    written = next(iter(getattr(config, "architectures", None) or ()), None)
    for kind in (usual, *_KINDS) if written else ():
        made = getattr(modeling_auto, _KINDS[kind][1]).get(config.model_type, ())
        if written in ((made,) if isinstance(made, str) else made):
            usual = kind
            break
    return getattr(transformers, _KINDS[usual][0])
