from interpose import benchmark as benchmark
from interpose import errors as errors
from interpose import mediators as mediators
from interpose import methods as methods
from interpose import metrics as metrics
from interpose import report as report
from interpose import tasks as tasks
from interpose.graph import Batch as Batch
from interpose.graph import Feed as Feed
from interpose.graph import Graph as Graph
from interpose.loading import build as build
from interpose.loading import load as load
from interpose.loading import wrap as wrap
from interpose.search import Circuit as Circuit
from interpose.search import Scores as Scores
from interpose.tasks.base import Pairs as Pairs
from interpose.tasks.base import pairs as pairs
from interpose.trace import Model as Model
from interpose.trace import grad as grad

__version__: str
