"""Pairs of your own: what the model says to each, and which edges between its parts the answers rest on.

Prints:
    The capital of France is: Paris
    The capital of Italy is: Rome
    The capital of Spain is: Madrid
    rank  unit                  score
       1  a23.h4->logits       +5.167
       2  input->m0            +4.099
       3  a29.h1->logits       +3.052
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

with model.trace(pairs.clean_batch()):
    logits = model.logits[:, -1].save()
for prompt, token in zip(pairs.clean, logits.argmax(-1), strict=True):
    print(f"{prompt}:{model.tokenizer.decode(token)}")

scores = ip.methods.EAP().score(model, pairs, ip.mediators.Edges())
print(scores.top(3))
