"""The model card of an exported run: README.md, as model hubs show it."""

import html
import importlib
import json
from pathlib import Path
from typing import Any

from jgen.app.load import Run
from jgen.config import ranges
from jgen.errors import UserError
from jgen.files import versions
from jgen.metrics import record
from jgen.train.stage import count

LICENCE = (
    "The code of jgen is under Apache-2.0. This file grants nothing for the weights: whoever publishes them names their "
    "licence here, and checks what the licence of the training images allows."
)

USE = {
    "weights": """```python
import jgen

run = jgen.load("FOLDER")        # this folder
images = run.sample(16, seed=0)  # [16, H, W, C] in [-1, 1]
```

`python -m MODULE sample --run FOLDER` writes pictures, and `evaluate --run FOLDER` measures them. Training does not go on from
it, since it holds no optimizer; another run begins from it with `train --train.begin-from FOLDER`.""",
    "stablehlo": """```python
import jax, numpy as np
from safetensors.numpy import load_file

sampler = jax.export.deserialize(bytearray(open("FOLDER/sampler.stablehlo", "rb").read()))
weights = load_file("FOLDER/sampler.safetensors")
images = sampler.call(weights, np.int32(0), np.int32(0))  # seed, number of the first image -> [BATCH, H, W, C] in [-1, 1]
```

jgen is not needed for this; with it, `jgen.load_sampler("FOLDER")(16, seed=0)` draws any number of images.""",
    "onnx": """```python
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("FOLDER/network.onnx")
noise = {each.name: np.random.normal(size=each.shape).astype(np.float32) for each in session.get_inputs()}
images = session.run(None, noise)[0]  # [BATCH, H, W, C] in [-1, 1]
```""",
}


def card(run: Run, stored: dict[str, Any], form: str, batch: int, options: Any) -> str:
    """The text of README.md: model, paper, data, how to use it, scores found in the run, options, versions, licence.

    stored: the run's config without folders of this machine; options: of sampling, as the form has them.
    """
    module, stage, data = stored["module"], run.stage, run.stage.data
    name = str(stored["config"].get("data", {}).get("name", data.name))
    title = (importlib.import_module(module).__doc__ or module).splitlines()[0]
    use = USE[form].replace("MODULE", module).replace("BATCH", str(batch))
    players = ", ".join(f"{name} {count(tree):,}" for name, tree in run.params.items())
    facts = {
        "experiment": f"`{module}`, preset `{stored['preset']}`, stage `{stage.name}`",
        "images": f"{_line(name)}, split {_line(data.split)}, {'x'.join(map(str, data.shape))}",
        "classes": f"{data.num_classes}" if data.num_classes else "none",
        "trained": f"{run.step:,} of {stage.train.steps:,} steps of {data.batch_size} images",
        "parameters": f"{players} (the moving average where there is one)",
        "sampling": ", ".join(f"{leaf.name}={ranges.shown(leaf.value)}" for leaf in ranges.leaves(options))
        if options
        else "none",
        "versions": ", ".join(f"{name} {number}" for name, number in versions("jax", "flax", "numpy").items()),
    }
    rows = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in facts.items())
    return f"""---
library_name: jgen
tags: [jgen, jax, flax, unconditional-image-generation]
---

# {title}

| | |
|---|---|
{rows}

## Use it

{use}

## Scores

{_scores(run.folder).replace(_line(data.name), _line(name))}

## Licence

{LICENCE}

## All settings

```json
{json.dumps(stored["config"], indent=2)}
```
"""


def _line(text: str) -> str:
    """A name from a config on one line of a table."""
    return html.escape(" ".join(text.split()))


def _scores(folder: Path) -> str:
    rows = []
    for path in sorted([*folder.glob("scores-*.json"), *folder.glob("evaluate-*.json")]):
        try:
            rows += [f"| {_line(each.metric)} | {each.value:.5g} | {_line(record.basis(each))} |" for each in record.read(path)]
        except UserError:
            continue  # another file of that name
    if not rows:
        return "None was measured in this run."
    return "\n".join(["| measure | value | measured on |", "|---|---|---|", *rows])
