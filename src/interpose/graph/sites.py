"""Sites: the one vocabulary for places in a model, and the shapes found there.

A standard site (`layers.12.attn.z`) is always a single tensor of a standard shape. Any module is a site under its own
path (`module("encoder.block.3").output`). Where an encoder feeds the layers, its sites are those of its own layers
(`encoder.layers.3.attn.z`). Axes: B batch, P position, H heads, K key/value heads, D head width, M model
width, F neurons, V vocabulary.
"""

import difflib
import re
from dataclasses import dataclass
from functools import cache, cached_property

from interpose.errors import SiteError

NEW_TOKENS = "tokens"
"""The token ids that a generation chose, in the order of its steps; no place in the network, and read only."""

MODEL_SITES: dict[str, str] = {"embed": "B P M", "norm.output": "B P M", "logits": "B P V"}
"""Sites of the whole model, with their axes."""

LAYER_SITES: dict[str, str] = {
    "input": "B P M",
    "mid": "B P M",
    "output": "B P M",
    "attn.input": "B P M",
    "attn.q": "B P H D",
    "attn.k": "B P K D",
    "attn.v": "B P K D",
    "attn.query": "B H P D",
    "attn.key": "B K P D",
    "attn.value": "B K P D",
    "attn.scores": "B H P P",
    "attn.pattern": "B H P P",
    "attn.z": "B P H D",
    "attn.result": "B P H M",
    "attn.output": "B P M",
    "mlp.input": "B P M",
    "mlp.neurons": "B P F",
    "mlp.output": "B P M",
}
"""Sites of one layer, with their axes."""

TRANSFORMER_LENS: dict[str, str] = {
    "hook_resid_pre": "input",
    "hook_resid_mid": "mid",
    "hook_resid_post": "output",
    "hook_attn_out": "attn.output",
    "hook_mlp_out": "mlp.output",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_attn_scores": "attn.scores",
    "attn.hook_pattern": "attn.pattern",
    "attn.hook_z": "attn.z",
    "attn.hook_result": "attn.result",
    "mlp.hook_post": "mlp.neurons",
}
"""What TransformerLens calls the sites of a layer."""

NNTERP: dict[str, str] = {
    "layers_input": "input",
    "layers_output": "output",
    "attentions_output": "attn.output",
    "attention_probabilities": "attn.pattern",
    "attentions_input": "attn.input",
    "mlps_input": "mlp.input",
    "mlps_output": "mlp.output",
}
"""What nnterp calls the sites of a layer, as lists over layers."""

WHOLE: dict[str, str] = {
    "hook_embed": "embed",
    "ln_final.hook_out": "norm.output",
    "ln_final": "norm.output",
    "token_embeddings": "embed",
}
"""What either calls the sites of the whole model."""


@dataclass(frozen=True)
class Site:
    """A named place.

    Attributes:
        name: a standard name such as `layers.12.attn.z`, or the path of a module.
        part: empty for a standard site; `output`, `input` or `inputs` for a module.
        call: which call of a module that runs several times in one pass; None means its only one.
    """

    name: str
    part: str = ""
    call: int | None = None

    def __str__(self) -> str:
        """Print the site as the code that reaches it."""
        called = "" if self.call is None else f".call({self.call})"
        if self.part:
            return f'module("{self.name}"){called}.{self.part}'
        return re.sub(r"^(encoder\.)?layers\.(\d+)", r"\1layers[\2]", self.name) + called

    @cached_property
    def layer(self) -> int | None:
        """The layer a standard site belongs to, or None."""
        found = re.match(r"(?:encoder\.)?layers\.(\d+)\.", self.name) if not self.part else None
        return int(found.group(1)) if found else None

    @cached_property
    def in_encoder(self) -> bool:
        """Whether it is a standard site of an encoder beside the layers."""
        return not self.part and self.name.startswith("encoder.")

    @cached_property
    def local(self) -> str:
        """A standard site's name inside its layer (`attn.z`), or its whole name."""
        return re.sub(r"^(?:encoder\.)?(?:layers\.\d+\.)?", "", self.name)

    @cached_property
    def axes(self) -> tuple[str, ...] | None:
        """The site's axes, such as `("B", "P", "H", "D")`; None for a module's own tensors."""
        if self.part:
            return None
        known = LAYER_SITES if self.layer is not None else MODEL_SITES
        return tuple(known[self.local].split())


@cache
def shared(name: str) -> Site:
    """The standard site of exactly this name, made once."""
    return Site(name)


def standard(name: str) -> Site:
    """The standard site of a name; names used by TransformerLens and nnterp are understood too.

    Args:
        name: `layers.5.attn.z`, `layers[5].attn.z`, `blocks.5.attn.hook_z`, `attentions_output[5]`, `logits`, ...

    Returns:
        the site.

    Raises:
        SiteError: no standard site has this name; the message lists the nearest ones.
    """
    text = re.sub(r"\[(\d+)\]", r".\1", name.strip())
    text = WHOLE.get(text, text)
    if text.startswith("encoder."):
        inside = standard(text.removeprefix("encoder."))
        if inside.name != "logits":
            return Site(f"encoder.{inside.name}")
    found = re.fullmatch(r"(?:layers|blocks)\.(\d+)\.(.+)", text)
    swapped = re.fullmatch(r"(\w+)\.(\d+)", text)
    if found:
        local = TRANSFORMER_LENS.get(found.group(2), found.group(2))
        if local in LAYER_SITES:
            return Site(f"layers.{found.group(1)}.{local}")
    elif swapped and swapped.group(1) in NNTERP:
        return Site(f"layers.{swapped.group(2)}.{NNTERP[swapped.group(1)]}")
    elif text in MODEL_SITES:
        return Site(text)
    raise SiteError(f"There is no site named {name!r}. {nearest(text)}")


def nearest(name: str) -> str:
    """A sentence naming the standard sites closest to `name`, with the names other libraries give them."""
    number = re.search(r"\d+", name)
    layer = number.group(0) if number else "0"
    local = re.sub(r"^\w+\.\d+\.", "", name)
    aliases = TRANSFORMER_LENS | NNTERP
    choices = [*LAYER_SITES, *MODEL_SITES, *aliases]
    close = difflib.get_close_matches(local, choices, n=3, cutoff=0.4)
    if not close:
        return "Sites are: " + ", ".join([*MODEL_SITES, *(f"layers[i].{site}" for site in LAYER_SITES)]) + "."
    said = []
    for choice in close:
        ours = aliases.get(choice, choice)
        text = ours if ours in MODEL_SITES else f"layers[{layer}].{ours}"
        said.append(text if ours == choice else f"{text} (elsewhere called {choice})")
    return "Nearest names: " + ", ".join(dict.fromkeys(said)) + "."
