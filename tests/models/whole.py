"""Comparing whole files of golden numbers with a network: its output, gradients and blocks, whatever of them a file has."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert import load_weights
from tests.oracle import Oracle

Convert = Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]
"""Official weights -> variables."""
EVERY = 3
"""Files have every third row and column of a block's features."""


def without(config: Mapping[str, Any], *own: str) -> dict[str, Any]:
    """The arguments of the reference constructor in a file's configuration, which has settings of its own besides."""
    return {name: value for name, value in config.items() if name not in own}


def float_inputs(o: Oracle, *names: str) -> dict[str, Any]:
    """{name: in/NAME, images channels last} of those inputs that the file has."""
    there = [name for name in names if f"in/{name}" in o]
    return {n: jnp.asarray(o.nhwc(f"in/{n}") if o[f"in/{n}"].ndim == 4 else o[f"in/{n}"]) for n in there}


def official_gradients(
    convert: Convert, weights: Mapping[str, np.ndarray], grads: Any, names: list[str]
) -> dict[str, np.ndarray]:
    """The gradients of official weights, from those of a converted tree.

    Every wanted number is given an index of its own, above 0; where the converter puts the indices tells where the numbers
    are. Other weights are zero, but for filters, which a converter may read.
    """
    if not names:
        return {}
    marked = {k: v if k.endswith("resample_filter") else np.zeros_like(v, np.float64) for k, v in weights.items()}
    ends = np.cumsum([weights[name].size for name in names])
    assert ends[-1] < 2**24, "float32 can't tell so many indices apart"
    for name, end in zip(names, ends.tolist()):
        shape = weights[name].shape
        marked[name] = np.arange(1.0 + end - weights[name].size, 1.0 + end).reshape(shape)
    found = np.zeros(1 + ends[-1])
    placed = jax.tree.leaves(convert(marked)["params"])
    for where, grad in zip(placed, jax.tree.leaves(grads), strict=True):
        np.add.at(found, np.asarray(where).astype(int), np.asarray(grad))
    parts = np.split(found[1:], ends[:-1])
    return {name: part.reshape(weights[name].shape) for name, part in zip(names, parts)}


def outputs(seen: Mapping[str, Any], name: str) -> Any:
    """A module's outputs."""
    return seen[name]["__call__"][0]


def check_gradients(
    o: Oracle, convert: Convert, weights: Mapping[str, np.ndarray], grads: Any, at: str = "out/grad/",
    apart: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Compares every gradient of a weight that the file has under `at`; apart: beginnings of names that are others' concern."""
    names = [n.removeprefix(at) for n in o.names if n.startswith(at)]
    names = [n for n in names if not n.startswith(("in/", *apart))]
    if names:
        for name, gradient in official_gradients(convert, weights, grads, names).items():
            o.check(f"{at}{name}", gradient)


def flattened(modules: Any) -> dict[str, Any]:
    """{names of a module and those around it, joined by _: its output} of the "intermediates" that flax captured."""
    flat = {}
    for path, value in jax.tree_util.tree_leaves_with_path(modules):
        flat["_".join(part.key for part in path if hasattr(part, "key") and part.key != "__call__")] = value
    return flat


def check_blocks(o: Oracle, modules: Any, of: Callable[[str], str] = lambda name: name) -> None:
    """Compares every out/block/NAME, of the first image and every third row and column, with what modules gave.

    modules: the "intermediates" that flax captured, with others added. of: official name -> name here, in which dots, slashes
    and underscores are one. Of a block's parts (NAME_0, NAME_1_conv) the last is meant.
    """
    flat = flattened(modules)
    for name in (n for n in o.names if n.startswith("out/block/")):
        plain = re.sub(r"[./]", "_", of(name.removeprefix("out/block/")))
        parts = {int(m[1] or 0): n for n in flat if (m := re.fullmatch(rf"{plain}(?:_(\d+))?(?:_op|_conv)?", n))}
        assert plain in flat or parts, f"{name}: no {plain} among {', '.join(sorted(flat))}"
        value = np.asarray(flat[plain] if plain in flat else flat[parts[max(parts)]])[0]
        if o[name].ndim == 3 and value.ndim == 3:
            value = np.moveaxis(value[::EVERY, ::EVERY], -1, 0)
        o.check(name, value.reshape(o[name].shape))


def check_network(
    o: Oracle,
    net: nn.Module,
    convert: Convert,
    call: Callable[[dict[str, Any]], tuple[tuple, dict[str, Any]]],
    inputs: dict[str, Any],
    of: Callable[[str], str] = lambda name: name,
    more: Callable[[Any, Any], dict[str, Any]] = lambda seen, params: {},
) -> Mapping[str, Any]:
    """Compares out/y of a network, its gradients by inputs and weights, and its blocks; gives the variables.

    call(inputs) -> (arguments, keywords) of the network; inputs: those that may have a gradient. of: as of `check_blocks`.
    more: (what modules gave, params) -> {name: what no module gives}.
    """
    weights, image = load_weights(o.path), o["out/y"].ndim == 4
    cotangent = jnp.asarray(o.nhwc("in/cotangent/y") if image else o["in/cotangent/y"])
    variables = convert(weights)

    @jax.jit
    def run(params: Any, inputs: Any) -> Any:
        def weighed(params: Any, inputs: Any) -> Any:
            args, keywords = call(inputs)
            how: dict = dict(capture_intermediates=True, mutable=["intermediates"])
            y, seen = net.apply({"params": params}, *args, **keywords, **how)
            return jnp.sum(y * cotangent), (y, seen["intermediates"])

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inputs)

    (grads, by_input), (y, seen) = run(variables["params"], inputs)
    o.check("out/y", y, image=image)
    for name, gradient in by_input.items():
        if f"out/grad/in/{name}" in o:
            o.check(f"out/grad/in/{name}", gradient, image=gradient.ndim == 4)
    check_gradients(o, convert, weights, grads)
    check_blocks(o, {**seen, **more(seen, variables["params"])}, of)
    return variables
