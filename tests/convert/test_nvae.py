"""NVAE's converter against a second reading of the authors' code, in NumPy, channels first, under their names."""

import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert.nvae import _groups, nvae
from jgen.errors import UserError
from jgen.models.nvae import latent_shapes
from jgen.objectives.nvae import from_posteriors

pytestmark = pytest.mark.slow
CONFIG = {
    "dataset": "imagenet_8", "num_latent_scales": 2, "num_groups_per_scale": 2, "num_latent_per_group": 3, "ada_groups": True,
    "min_groups_per_scale": 1, "num_channels_enc": 4, "num_channels_dec": 4, "num_preprocess_blocks": 1,
    "num_preprocess_cells": 2, "num_cell_per_cond_enc": 2, "num_postprocess_blocks": 1, "num_postprocess_cells": 2,
    "num_cell_per_cond_dec": 1, "num_mixture_dec": 1, "num_nf": 2, "use_se": True, "res_dist": True,
    "arch_instance": "res_mbconv", "num_x_bits": 8, "seed": 1,
}  # fmt: skip


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def swish(x):
    return x * sigmoid(x)


def latents_of(count, latents):
    return np.arange(count) * latents // count


class Reference:
    """The authors' forward pass; a weight is drawn where it is first used, so that `weights` has their names and shapes."""

    def __init__(self, config):
        self.c, self.rng, self.weights = config, np.random.default_rng(0), {}

    def w(self, name, *shape, scale=0.5, shift=0.0):
        if name not in self.weights:
            self.weights[name] = np.float32(shift + scale * self.rng.standard_normal(shape))
        return self.weights[name].astype(np.float64)

    def conv(self, name, x, out, k=1, stride=1, depthwise=False, bias=True, norm=True, seen=None):
        inputs = 1 if depthwise else x.shape[1]
        kernel = self.w(f"{name}.weight", out, inputs, k, k, scale=(inputs * k * k) ** -0.5)
        if norm:
            kernel = kernel * (1 if seen is None else seen)
            size = np.sqrt((kernel**2).sum((1, 2, 3), keepdims=True))
            kernel = np.exp(self.w(f"{name}.log_weight_norm", out, 1, 1, 1, scale=0.2)) * kernel / (size + 1e-5)
        else:
            self.weights[f"{name}.weight_normalized"] = self.weights[f"{name}.weight"]
        x = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
        rows, columns = ((n - k) // stride + 1 for n in x.shape[2:])
        total = 0.0
        for i in range(k):
            for j in range(k):
                view = x[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride][:, :, :rows, :columns]
                tap = kernel[:, :, i, j]
                total = total + (view * tap[:, 0, None, None] if depthwise else np.einsum("bihw,oi->bohw", view, tap))
        return total + self.w(f"{name}.bias", out)[:, None, None] if bias else total

    def norm(self, name, x):
        c = x.shape[1]
        self.weights[f"{name}.num_batches_tracked"] = np.array(7)
        variance = self.weights.setdefault(f"{name}.running_var", np.float32(self.rng.uniform(0.5, 2, c)))
        mean, gain, bias = (self.w(f"{name}.{kind}", c) for kind in ("running_mean", "weight", "bias"))
        x = (x - mean[:, None, None]) / np.sqrt(variance.astype(np.float64) + 1e-5)[:, None, None]
        return x * gain[:, None, None] + bias[:, None, None]

    def excited(self, name, x):
        c, hidden = x.shape[1], max(x.shape[1] // 16, 4)
        h = x.mean((2, 3)) @ self.w(f"{name}.se.se.0.weight", hidden, c).T + self.w(f"{name}.se.se.0.bias", hidden)
        h = np.maximum(h, 0) @ self.w(f"{name}.se.se.2.weight", c, hidden).T + self.w(f"{name}.se.se.2.bias", c)
        return x * sigmoid(h)[:, :, None, None]

    def encoder_cell(self, name, x, down=False):
        width, skip = x.shape[1] * (1 + down), x
        if down:
            h = swish(x)
            parts = (h, h[:, :, 1:, 1:], h[:, :, :, 1:], h[:, :, 1:])
            skip = [self.conv(f"{name}.skip.conv_{i + 1}", part, width // 4, stride=2) for i, part in enumerate(parts)]
            skip = np.concatenate(skip, 1)
        for i in range(2):
            x = swish(self.norm(f"{name}._ops.{i}.bn_act", x))
            x = self.conv(f"{name}._ops.{i}.conv_0", x, width, 3, 2 if down and not i else 1)
        return skip + 0.1 * self.excited(name, x)

    def decoder_cell(self, name, x, expand=6, up=False):
        skip, width, hidden, first = x, x.shape[1] // (1 + up), x.shape[1] * expand, int(up)
        if up:
            for axis in (2, 3):
                n = skip.shape[axis]
                at = np.linspace(0, n - 1, 2 * n)
                skip = np.apply_along_axis(lambda v: np.interp(at, np.arange(n), v), axis, skip)  # noqa: B023
            skip = self.conv(f"{name}.skip.1", skip, width, bias=False)
            x = x.repeat(2, 2).repeat(2, 3)
        ops = [f"{name}._ops.0.conv.{first + i}" for i in range(5)]
        x = self.norm(f"{ops[0]}.bn", x)
        x = swish(self.norm(f"{ops[1]}.conv.1", self.conv(f"{ops[1]}.conv.0", x, hidden, bias=False, norm=False)))
        x = self.conv(f"{ops[2]}.conv.0", x, hidden, 5, depthwise=True, bias=False, norm=False)
        x = self.conv(ops[3], swish(self.norm(f"{ops[2]}.conv.1", x)), width, bias=False, norm=False)
        return skip + 0.1 * self.excited(name, self.norm(f"{ops[4]}.bn", x))

    def seen(self, out, inputs, k, strict, mirrored):
        """Pixels before the middle in raster order, or after it; in the middle, latents before an output's, or its own too."""
        latents, m = self.c["num_latent_per_group"], k // 2
        found = np.zeros((out, inputs, k, k))
        for i in range(k):
            for j in range(k):
                found[:, :, i, j] = (i, j) > (m, m) if mirrored else (i, j) < (m, m)
        ahead = latents_of(out, latents)[:, None] - latents_of(inputs, latents)[None]
        found[:, :, m, m] = 1 if inputs == 1 else ahead > 0 if strict else ahead >= 0
        return found

    def flowed(self, name, z):
        latents = z.shape[1]
        hidden = 6 * latents
        for cell, mirrored in ((f"{name}.cell1", False), (f"{name}.cell2", True)):
            sizes = ((hidden, latents, 3), (hidden, 1, 5), (latents, hidden, 1))
            masks = [self.seen(*size, size[2] == 3, mirrored) for size in sizes]
            h = elu(self.conv(f"{cell}.conv.convz.0", z, hidden, 3, bias=False, seen=masks[0]))
            h = elu(self.conv(f"{cell}.conv.convz.2", h, hidden, 5, depthwise=True, bias=False, seen=masks[1]))
            z = z - self.conv(f"{cell}.mu.conv_0", elu(h), latents, seen=masks[2])
        return z

    def __call__(self, x, noise, groups):
        c, enc, features = self.c, 0, []
        latents = c["num_latent_per_group"]
        x = self.conv("stem", x, c["num_channels_enc"], 3)
        x = self.encoder_cell("pre_process.0", x)
        x = self.encoder_cell("pre_process.1", x, down=True)
        for s, count in enumerate(groups):
            if s:
                x, enc = self.encoder_cell(f"enc_tower.{enc}", x, down=True), enc + 1
            for g in range(count):
                for _ in range(c["num_cell_per_cond_enc"]):
                    x, enc = self.encoder_cell(f"enc_tower.{enc}", x), enc + 1
                if (s, g) != (len(groups) - 1, count - 1):
                    features, enc = [(enc, x), *features], enc + 1
        encoded = elu(self.conv("enc0.1", elu(x), x.shape[1]))
        start = self.w("prior_ftr0", *encoded.shape[1:])
        x, dec, k = np.broadcast_to(start, encoded.shape), 0, 0
        for s, count in enumerate(reversed(groups)):
            if s:
                x, dec = self.decoder_cell(f"dec_tower.{dec}", x, up=True), dec + 1
            for _ in range(count):
                prior = (0.0, 0.0)
                if k:
                    for _ in range(c["num_cell_per_cond_dec"]):
                        x, dec = self.decoder_cell(f"dec_tower.{dec}", x), dec + 1
                    prior = np.split(self.conv(f"dec_sampler.{k - 1}.1", elu(x), 2 * latents), 2, 1)
                    place, seen = features[k - 1]
                    encoded = seen + self.conv(f"enc_tower.{place}.conv", x, x.shape[1])
                mean, log_deviation = np.split(self.conv(f"enc_sampler.{k}", encoded, 2 * latents, 3), 2, 1)
                mean, log_deviation = (5 * np.tanh((p + q) / 5) for p, q in zip(prior, (mean, log_deviation)))
                z = mean + (np.exp(log_deviation) + 0.01) * noise[k]
                for n in range(c["num_nf"]):
                    z = self.flowed(f"nf_cells.{k * c['num_nf'] + n}", z)
                x, dec, k = self.conv(f"dec_tower.{dec}.conv", np.concatenate([x, z], 1), x.shape[1]), dec + 1, k + 1
        x = self.decoder_cell("post_process.1", self.decoder_cell("post_process.0", x, 3, up=True), 3)
        return self.conv("image_conditional.1", elu(x), 6, 3)


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(1)
    x, shapes = rng.uniform(-1, 1, (2, 3, 8, 8)), [(2, 3, 2, 2), (2, 3, 4, 4), (2, 3, 4, 4)]
    noise = [rng.standard_normal(shape) for shape in shapes]
    made = Reference(CONFIG)
    return made(x, noise, (2, 1)), made.weights, x, noise


def test_the_network_is_the_authors(reference):
    outputs, weights, x, noise = reference
    net, variables = nvae(weights, **CONFIG)
    assert net.groups == (2, 1)
    draw = from_posteriors([jnp.asarray(n.transpose(0, 2, 3, 1), jnp.float32) for n in noise])
    found, groups = net.apply(variables, jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32), draw)
    np.testing.assert_allclose(found, outputs.transpose(0, 2, 3, 1), rtol=1e-3, atol=1e-4 * np.abs(outputs).max())
    assert [group.latents.shape[1:] for group in groups] == latent_shapes(net)


def test_groups_of_a_scale_are_halved_where_they_adapt():
    given = {"num_groups_per_scale": 5, "num_latent_scales": 3, "min_groups_per_scale": 2}
    assert _groups(given | {"ada_groups": True}) == (5, 2, 2)
    assert _groups(given) == (5, 5, 5)


@pytest.mark.parametrize("change,message", [
    ({"arch_instance": "res_bnelu"}, "arch_instance=res_bnelu: must be res_mbconv here"),
    ({"use_se": False}, "use_se=False: must be True here"),
    ({"res_dist": False}, "res_dist=False: must be True here"),
    ({"num_channels_dec": 8}, "num_channels_dec=8: must be num_channels_enc=4 here"),
    ({"num_postprocess_cells": 3}, "num_postprocess_cells=3: must be num_preprocess_cells=2 here"),
    ({"dataset": "stacked_mnist"}, "dataset=stacked_mnist: must be mnist"),
    ({"num_latent_scales": 1, "num_groups_per_scale": 1}, "num_groups_per_scale=1: the authors' plain VAE"),
    ({"num_flow": 2}, "num_flow: no option of NVAE"),
])  # fmt: skip
def test_options_that_are_not_heeded_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        nvae({}, **CONFIG | change)


def test_weights_that_are_missing_or_left_over_are_listed(reference):
    _, weights, _, _ = reference
    changed = {name: array for name, array in weights.items() if name != "nf_cells.0.cell2.mu.conv_0.weight"}
    with pytest.raises(UserError, match="missing flow_0_0/step_1/shift/causal_mirrored_kernel; left over nf_cells.9.x.weight"):
        nvae(changed | {"nf_cells.9.x.weight": np.zeros(1)}, **CONFIG)
