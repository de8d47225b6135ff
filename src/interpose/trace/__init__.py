"""How a person writes a graph: the model's names, the with-block, its proxies."""

from interpose.graph import Batch as Batch
from interpose.trace.block import Trace as Trace
from interpose.trace.dataset import Activations as Activations
from interpose.trace.edits import Edit as Edit
from interpose.trace.gradient import grad as grad
from interpose.trace.info import ModelInfo as ModelInfo
from interpose.trace.model import Model as Model
from interpose.trace.prompts import Beside as Beside, Tokens as Tokens
