"""What methods share: scores, the circuits cut from them, and the rules by which they are cut."""

from interpose.search.scores import Circuit as Circuit, Ranked as Ranked, Scores as Scores, Top as Top
