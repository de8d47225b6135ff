"""Read and write inside one run of a model.

Prints:
    as it is: Paris
    without the first MLP at "iffel": New
"""

import interpose as ip

model = ip.load("smollm2-135m-instruct")
prompt = "The Eiffel Tower is in the city of"

with model.trace(prompt):
    as_it_is = model.logits[0, -1].save()

with model.trace(prompt):
    model.layers[0].mlp.output[:, 2] = 0
    changed = model.logits[0, -1].save()

print("as it is:", model.tokenizer.decode(as_it_is.argmax()).strip())
print('without the first MLP at "iffel":', model.tokenizer.decode(changed.argmax()).strip())
