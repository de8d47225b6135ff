"""What to do, as plain data: sites, nodes, worlds, the allow-list of operations, the backend protocol. No torch."""

from interpose.graph.backend import Backend as Backend
from interpose.graph.feed import Batch as Batch
from interpose.graph.feed import Feed as Feed
from interpose.graph.nodes import Graph as Graph
from interpose.graph.nodes import World as World
from interpose.graph.sites import Site as Site
