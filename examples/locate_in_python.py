"""The main job in Python, small: score every edge, then prove two circuits on pairs that the search has not seen.

Prints:
    TODO

`interpose locate ioi` does the same with more pairs and all ten sizes, and writes a report.
"""

import interpose as ip
from interpose.benchmark import ProofSettings, prove
from interpose.search.edge_patching import EdgePatching

model = ip.load("smollm2-135m-instruct")
task, edges = ip.tasks.IOI(), ip.mediators.Edges()

scores = ip.methods.EAP().score(model, task.pairs(model, n=8, split="train"), edges)
held_out = task.pairs(model, n=4, split="test")
run_circuits = EdgePatching(model, held_out, edges)
proof = prove(scores, run_circuits.graph, run_circuits, ProofSettings(sizes=(0.05, 0.1)))

print(scores.top(3))
for point in proof.circuit.absolute.points:
    print(f"{point.budget} edges, {point.kept:.0f} after pruning: faithfulness {point.faithfulness}")
print("random:", *(curves.absolute.points[0].faithfulness for curves in proof.controls.values()))
