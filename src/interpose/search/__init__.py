"""What methods share: scores, the circuits cut from them, and the rules by which they are cut."""

from interpose.search.circuit import Circuit as Circuit, CircuitComparison as CircuitComparison
from interpose.search.comparison import ScoresComparison as ScoresComparison
from interpose.search.scores import Ranked as Ranked, Scores as Scores, Top as Top
