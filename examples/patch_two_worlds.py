"""Give each head of one layer, on the corrupt prompt, what it says on the clean one.

Prints:
    no head: -6.47
    head 0: -5.90
    head 1: -6.34
    head 2: -5.78
    head 3: +0.10
    head 4: -6.32
    head 5: -6.27
    head 6: -6.48
    head 7: -6.12
    head 8: -6.33
"""

import interpose as ip

model = ip.load("smollm2-135m-instruct")
clean = "When John and Mary went to the store, John gave a drink to"
corrupt = "When John and Mary went to the store, Mary gave a drink to"
mary, john = model.tokens([" Mary", " John"]).ids[:, -1]

with model.trace(corrupt):
    logits = model.logits[0, -1]
    before = (logits[mary] - logits[john]).save()
print(f"no head: {before:+.2f}")

for head in range(model.dims.heads):
    with model.trace() as t:
        with t.world("clean", clean):
            z = model.layers[23].attn.z[:, :, head]
        with t.world("patched", corrupt):
            model.layers[23].attn.z[:, :, head] = z
            logits = model.logits[0, -1]
            after = (logits[mary] - logits[john]).save()
    print(f"head {head}: {after:+.2f}")
