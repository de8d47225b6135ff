"""Which tokens of a prompt the answer rests on, by gradient times value at the embedding.

Prints:
    The      +0.41
    E        -0.17
    iffel    -0.18
    Tower    +1.14
    is       -0.07
    in       +0.60
    the      +0.11
    city     +0.39
    of       -1.11
"""

import interpose as ip

model = ip.load("smollm2-135m-instruct")
prompt = "The Eiffel Tower is in the city of"
ids = model.tokenizer(prompt)["input_ids"]
paris, rome = model.tokens([" Paris", " Rome"]).ids[:, -1]

with model.trace(prompt):
    logits = model.logits[0, -1]
    slope = ip.grad(logits[paris] - logits[rome], model.embed)
    importance = (slope * model.embed).sum(-1)[0].save()

for token, value in zip(ids, importance, strict=True):
    print(f"{model.tokenizer.decode(token).strip():8} {value:+.2f}")
