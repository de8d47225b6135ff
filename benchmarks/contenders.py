"""What is compared: a network and its inputs, two tasks, and who does them: raw hooks and interpose.

Every contender has a copy of the network of its own, since some change the modules they are given; all share one set of
weights. Each does the same two tasks on the same tokens, mask and positions:

    patch   overwrite the last position of the middle block's output; return the logits
    cache   return every block's output, and the logits
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
import transformers
from torch import Tensor, nn

import interpose as ip

Task = Callable[[], list[Tensor]]


@final
@dataclass(frozen=True)
class Setting:
    """A network and what it is run on."""

    name: str
    layers: int
    width: int
    heads: int
    vocab: int
    batch: int
    length: int
    calls: int
    seed: int = 0

    @cached_property
    def network(self) -> nn.Module:
        """A GPT-2 of transformers with random weights."""
        torch.manual_seed(self.seed)
        config = transformers.GPT2Config(
            n_layer=self.layers,
            n_embd=self.width,
            n_head=self.heads,
            vocab_size=self.vocab,
            bos_token_id=0,
            eos_token_id=0,
        )
        return transformers.GPT2LMHeadModel(config).eval()

    @cached_property
    def given(self) -> dict[str, Any]:
        """What the network is called with."""
        torch.manual_seed(self.seed)
        ids = torch.randint(self.vocab, (self.batch, self.length))
        positions = torch.arange(self.length).expand(self.batch, -1)
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "position_ids": positions,
            "use_cache": False,
        }

    @cached_property
    def vector(self) -> Tensor:
        """What is written."""
        return torch.randn(self.width, generator=torch.Generator().manual_seed(self.seed))

    @property
    def middle(self) -> int:
        """The block that is patched."""
        return self.layers // 2

    def twin(self) -> Any:
        """A copy of the network that shares its weights."""
        weights = {id(weight): weight for weight in [*self.network.parameters(), *self.network.buffers()]}
        return copy.deepcopy(self.network, weights)


SETTINGS = {
    "tiny": Setting("tiny", layers=2, width=64, heads=4, vocab=512, batch=1, length=16, calls=10),
    "large": Setting("large", layers=12, width=768, heads=12, vocab=50257, batch=4, length=64, calls=1),
}


@final
@dataclass(frozen=True)
class Contender:
    """One way to do the tasks.

    Attributes:
        tasks: by name; each gives the tensors that the task asks for.
        plain: a plain call of the network as it is after it was given to the library.
        note: what a reader should know.
    """

    tasks: dict[str, Task]
    plain: Callable[[], Any] | None = None
    note: str = ""


def raw_hooks(of: Setting) -> Contender:
    """torch's own hooks: registered, run, removed."""
    network = of.twin()
    blocks, vector = network.transformer.h, of.vector

    def patch() -> list[Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            output[:, -1] = vector

        handle = blocks[of.middle].register_forward_hook(hook)
        try:
            return [network(**of.given).logits]
        finally:
            handle.remove()

    def cache() -> list[Tensor]:
        found: list[Tensor] = []
        handles = [block.register_forward_hook(lambda module, args, output: found.append(output)) for block in blocks]
        try:
            logits = network(**of.given).logits
            return [*found, logits]
        finally:
            for handle in handles:
                handle.remove()

    return Contender({"patch": patch, "cache": cache}, plain=lambda: network(**of.given))


def with_block(of: Setting) -> Contender:
    """interpose as a user writes it: each run records its block anew."""
    network = of.twin()
    model, ids, vector = ip.wrap(network), of.given["input_ids"], of.vector

    def patch() -> list[Tensor]:
        with model.trace(ids):
            model.layers[of.middle].output[:, -1] = vector
            logits = model.logits.save()
        return [logits]

    def cache() -> list[Tensor]:
        with model.trace(ids):
            outputs = [layer.output.save() for layer in model.layers]
            logits = model.logits.save()
        return [*outputs, logits]

    return Contender({"patch": patch, "cache": cache}, plain=lambda: network(**of.given))


def replay(of: Setting) -> Contender:
    """interpose as a sweep runs it: recorded once, then only run."""
    model, ids = ip.wrap(of.twin()), of.given["input_ids"]
    with model.trace(ids, run=False) as patch:
        model.layers[of.middle].output[:, -1] = of.vector
        model.logits.save("logits")
    with model.trace(ids, run=False) as cache:
        for layer in model.layers:
            layer.output.save()
        model.logits.save("logits")

    def run(block: Any) -> list[Tensor]:
        return list(next(iter(model.backend.run_many([block.graph], [block.feed]))).values())

    return Contender({"patch": lambda: run(patch), "cache": lambda: run(cache)})


OURS = {"raw hooks": raw_hooks, "interpose, with-block": with_block, "interpose, replay": replay}
"""Always there; the first is what all others are compared with."""
