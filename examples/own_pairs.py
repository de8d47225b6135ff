"""Pairs of your own, and which attention blocks the answer rests on.

Prints:
    TODO
"""

import interpose as ip

model = ip.load("smollm2-135m-instruct")
pairs = ip.pairs(
    model,
    clean=["The capital of France is", "The capital of Italy is", "The capital of Spain is"],
    corrupt=["The capital of Italy is", "The capital of Spain is", "The capital of France is"],
    answers=[" Paris", " Rome", " Madrid"],
    wrong=[" Rome", " Madrid", " Paris"],
)
scores = ip.methods.ActivationPatching().score(model, pairs, ip.mediators.AttentionBlocks())
print(scores.top(3))
