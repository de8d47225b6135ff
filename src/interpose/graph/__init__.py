"""What to do, as plain data: sites, nodes, worlds, the allow-list of operations, the backend protocol. No torch."""

from interpose.graph.backend import Backend as Backend
from interpose.graph.feed import Batch as Batch, Feed as Feed
from interpose.graph.nodes import Graph as Graph, World as World
from interpose.graph.sites import Site as Site
