"""The sets of weights in a checkpoint (raw, averaged, of several networks), and the choice among them.

Authors save a state dict itself; a dict that holds it under a name (state_dict, model, ema, g_ema); a list (NCSN: weights,
optimizer, epoch, step and then the average); an average as a list of tensors without names (score_sde's shadow_params); or
both in one state dict (latent diffusion's model_ema). Tensors that stand loose beside such dicts (pSp's latent_avg) belong to
every set of the file, under their own names; single numbers there are counters of the training, and are passed over.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jgen.errors import UserError, nearest

Weights = dict[str, np.ndarray]

NCSN_LIST = {0: "model", 4: "ema"}
"""Places of NCSN's list. The others hold the optimizer, the epoch and the step."""
AVERAGED = "model_ema."
"""Begins the names of an average that latent diffusion keeps among its weights, without their dots."""


def weight_sets(content: Any) -> dict[str, Weights]:
    """{name of the set: {official name: array}} of what a checkpoint holds; "" where the content is the set itself."""
    if isinstance(content, list | tuple):
        content = {NCSN_LIST.get(i, str(i)): part for i, part in enumerate(content)}
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, Weights] = {}
    known: set[int] = set()  # one part under several names counts once
    for name, part in content.items():
        if isinstance(part, Mapping) and id(part) not in known and (tensors := _tensors(part)):
            known.add(id(part))
            found |= _with_average(str(name), tensors)
    if not found and (own := _tensors(content)):
        return _with_average("", own)
    loose = {name: value for name, value in _tensors(content).items() if value.ndim}
    for name, part in found.items():
        if twice := sorted(set(loose) & set(part)):
            raise UserError(f"{', '.join(twice)}: beside {name or 'the weights'} and in it; which one counts is not said")
        found[name] = part | loose
    for name, part in content.items():
        shadow = part.get("shadow_params") if isinstance(part, Mapping) else None
        if isinstance(shadow, list) and "model" in found:
            found[str(name)] = _named(shadow, found["model"])
    return found


def choose(sets: Mapping[str, Weights], wanted: str, path: Path) -> Weights:
    """The set of that name; the only one where none is named.

    Raises UserError that lists them where there are several and none is named, and where there is none of the name.
    """
    names = [name or "the file itself" for name in sets]
    if not sets:
        raise UserError(f"{path}: holds no tensors")
    if wanted:
        if wanted not in sets:
            raise UserError(
                f"weights={wanted}: {path} has none of this name{nearest(wanted, names)}; there are {', '.join(names)}"
            )
        return sets[wanted]
    if len(sets) > 1:
        raise UserError(
            f"{path}: holds several sets of weights ({', '.join(names)}); choose one, such as weights={names[-1]!r}"
        )
    return next(iter(sets.values()))


def _tensors(content: Mapping[Any, Any]) -> Weights:
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, np.ndarray)}


def _with_average(name: str, weights: Weights) -> dict[str, Weights]:
    """The set, and apart from it the average that is kept among its weights."""
    average = {key.removeprefix(AVERAGED): value for key, value in weights.items() if key.startswith(AVERAGED)}
    raw = {key: value for key, value in weights.items() if not key.startswith(AVERAGED)}
    if not average or not raw:
        return {name: weights}
    short = {key.removeprefix("model.").replace(".", ""): key for key in raw if key.startswith("model.")}
    return {"model": raw, "ema": raw | {short[key]: value for key, value in average.items() if key in short}}


def _named(shadow: list[Any], weights: Weights) -> Weights:
    """An average without names: those of the weights in their order; arrays of other shapes are no parameters (buffers)."""
    left = [np.asarray(value) for value in shadow if isinstance(value, np.ndarray)]
    named = dict(weights)
    for name, value in weights.items():
        if left and left[0].shape == value.shape:
            named[name] = left.pop(0)
    if left:
        raise UserError(f"an average of {len(shadow)} tensors does not fit the {len(weights)} weights beside it")
    return named
