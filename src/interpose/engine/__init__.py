"""How a graph runs on a torch module: plans, views, lenses, values. Knows no architecture."""

from interpose.engine.attention import Attention as Attention
from interpose.engine.local import LocalBackend as LocalBackend
