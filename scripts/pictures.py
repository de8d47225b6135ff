"""Make the pictures of one prompt that the documentation shows; the same model gives the same pictures.

.venv/bin/python scripts/pictures.py [docs/images]
"""

import sys
from pathlib import Path

import interpose as ip

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
model = ip.load("smollm2-135m-instruct")
lens = ip.report.lens(model, "The Eiffel Tower is in the city of", target=" Paris")
attention = ip.report.attention(model, "When John and Mary went to the store, John gave a drink to", layer=23)
for name, picture in {"lens": lens, "attention": attention}.items():
    print(picture.save(folder / f"{name}.png"))
