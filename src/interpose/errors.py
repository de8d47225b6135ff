"""Every exception that interpose raises on purpose.

    InterposeError
    ├── GraphError            an intervention that cannot be meant
    │   ├── SiteError         a place the model does not have
    │   ├── ShapeError        tensors that do not fit each other
    │   └── TraceError        a with-block used in a way that would lose a value
    ├── RunError              the network failed, or a site was never reached, while running
    ├── LoadError             a model could not be loaded
    │   └── DownloadError     its file could not be fetched, or is not the one that was pinned
    ├── DataError             a data set of activations that cannot be written, continued or read
    ├── TaskError             counterfactual pairs that cannot be made or do not align
    ├── SearchError           a method, mediator or score used where it does not apply
    │   └── Refused           units of a kind that this method, or these scores, are not for
    └── UsageError            the command line was used wrongly (exit code 2)

A message says what happened, what was expected and what to write instead.
"""


class InterposeError(Exception):
    """The root: catch this to catch everything interpose raises on purpose."""


class GraphError(InterposeError):
    """The intervention cannot be meant as written."""


class SiteError(GraphError):
    """The model has no such place; the message lists the nearest names."""


class ShapeError(GraphError):
    """Tensors in the intervention do not fit each other."""


class TraceError(GraphError):
    """The with-block was used in a way that would lose or confuse a value."""


class RunError(InterposeError):
    """The network failed while running, or a requested site was never reached."""


class LoadError(InterposeError):
    """A model could not be loaded; the message says what was tried."""


class DownloadError(LoadError):
    """A file could not be fetched, or is not the one that was pinned."""


class DataError(InterposeError):
    """A data set of activations cannot be written, continued or read."""


class TaskError(InterposeError):
    """Counterfactual pairs cannot be made, or do not align."""


class SearchError(InterposeError):
    """A method, mediator or score was used where it does not apply."""


class Refused(SearchError):
    """The units are of a kind that this method cannot score, or that these scores are not of."""


class UsageError(InterposeError):
    """The command line was used wrongly; it exits with code 2."""
