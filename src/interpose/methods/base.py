"""What every search method is: a frozen dataclass of settings with one `search`, and a final `score`."""

import platform
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from interpose import __version__
from interpose.errors import Refused, SearchError
from interpose.mediators.base import Mediator
from interpose.search.scores import Scores
from interpose.tasks.base import Pairs
from interpose.trace import Model


@dataclass(frozen=True)
class Method(ABC):
    """A way to score units. Its fields are everything that can change the result; nothing is kept between calls.

    Attributes:
        cut: how circuits are cut from its scores: `top-n`, the n best, or `greedy`, grown from the logits backwards.
    """

    cut: ClassVar[str] = "top-n"

    @final
    def score(self, model: Model, pairs: Pairs, mediators: Mediator) -> Scores:
        """Score every unit: positive where the unit helps the behaviour.

        The search runs where the model is: here, or beside the weights on a server.

        Args:
            model: the model.
            pairs: clean and corrupt prompts with answers.
            mediators: the units to score.

        Returns:
            the scores, with how they came about in `meta`.

        Raises:
            SearchError: the method does not apply to these units, or there are no pairs.
        """
        if len(pairs) == 0:
            raise SearchError("There are no pairs to search with; draw at least one.")
        started = time.perf_counter()
        values = model.backend.search(self, model, pairs, mediators)
        units = mediators.units(model, pairs)
        meta = {
            "method": type(self).__name__,
            "settings": asdict(self),
            "cut": self.cut,
            **circumstances(model, pairs, mediators),
            "seconds": time.perf_counter() - started,
        }
        source = getattr(self, "source", None)  # methods that compare two models
        if isinstance(source, str) and source in model.backend.opened:
            meta["source_hash"] = model.backend.opened[source]
        return Scores(values.detach().float().cpu(), units, meta)

    @abstractmethod
    def search(self, model: Model, pairs: Pairs, mediators: Mediator) -> Float[Tensor, " units"]:
        """One score a unit, in the order of `mediators.units`; called by `score`, beside the weights."""

    def refuse(self, mediators: Mediator, instead: str) -> Refused:
        """The error for units that this method cannot score.

        Args:
            mediators: the units.
            instead: what it does score, and what scores others; units with a method of their own name that.
        """
        if mediators.method is not None:
            instead = f"Use {mediators.method}, which is made for them."
        return Refused(f"{type(self).__name__} cannot score {mediators!r}. {instead}")


def circumstances(model: Model, pairs: Pairs, mediators: Mediator) -> dict[str, Any]:
    """What scores are of, for their `meta`: units, model, pairs and versions."""
    return {
        "mediator": repr(mediators),
        "model": model.info.name,
        "note": model.info.note,
        "weights_hash": model.weights_hash,
        "task": pairs.info.get("task", "custom"),
        "seed": pairs.info.get("seed"),
        "pairs": dict(pairs.info),
        "examples": len(pairs),
        "versions": versions(),
    }


def versions() -> dict[str, Any]:
    """The versions that a result depends on."""
    from importlib.metadata import version

    return {
        "interpose": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }
