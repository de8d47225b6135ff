from interpose import (
    benchmark as benchmark,
    errors as errors,
    mediators as mediators,
    methods as methods,
    metrics as metrics,
    report as report,
    tasks as tasks,
)
from interpose.graph import Batch as Batch, Feed as Feed, Graph as Graph
from interpose.loading import build as build, load as load, wrap as wrap
from interpose.search import Circuit as Circuit, Scores as Scores
from interpose.tasks.base import (
    Pairs as Pairs,
    pairs as pairs,
    read_pairs as read_pairs,
    write_pairs as write_pairs,
)
from interpose.trace import Activations as Activations, Edit as Edit, Model as Model, grad as grad

__version__: str
