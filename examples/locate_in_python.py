"""The main job in Python, on a behaviour of your own: score every edge, then prove circuits on other countries.

Prints:
    rank  unit                  score
       1  input->m0             +5.68
       2  a23.h4->logits       +5.284
       3  m0->a23.h4<v>        +3.843
    faithfulness of 10 % of the edges, circuit: 0.947 [0.898, 1.033]
    faithfulness of 10 % of the edges, uniform: 0.000 [0.000, 0.000]
    faithfulness of 10 % of the edges, shuffled: 0.057 [-0.007, 0.138]

`interpose locate ioi` does the same for a task, with more pairs, all ten sizes and a report.
"""

import interpose as ip
from interpose.benchmark import ProofSettings, prove
from interpose.search.edge_patching import EdgePatching


def capitals(**known: str) -> ip.Pairs:
    """Each country beside the next one."""
    countries, cities = [*known], [f" {city}" for city in known.values()]
    clean = [f"The capital of {country} is" for country in countries]
    return ip.pairs(model, clean, [*clean[1:], clean[0]], cities, [*cities[1:], cities[0]])


model = ip.load("smollm2-135m-instruct")
edges = ip.mediators.Edges()

searched = capitals(France="Paris", Italy="Rome", Spain="Madrid", Russia="Moscow", Egypt="Cairo", England="London")
scores = ip.methods.EAP().score(model, searched, edges)

held_out = capitals(Germany="Berlin", Japan="Tokyo", Greece="Athens", Austria="Vienna")
run_circuits = EdgePatching(model, held_out, edges)
proof = prove(scores, run_circuits.graph, run_circuits, ProofSettings(sizes=(0.1, 1.0)))

print(scores.top(3))
for name, curves in {"circuit": proof.circuit, **proof.controls}.items():
    print(f"faithfulness of 10 % of the edges, {name}: {curves.absolute.at(0.1).faithfulness}")
