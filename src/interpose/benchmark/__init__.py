"""The MIB circuit track as a library: the size grid, faithfulness with intervals, areas, and random controls."""

from interpose.benchmark.faithfulness import ProofSettings as ProofSettings, prove as prove
from interpose.benchmark.grid import SIZES as SIZES
from interpose.benchmark.proof import Proof as Proof
