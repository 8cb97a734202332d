"""Quantisers and VQ-VAE-2 against Sonnet and rosinality's code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.vqvae import vqvae2
from jgen.models.vqvae import quantize, straight_through
from jgen.objectives import vqvae
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def double(x):
    return jnp.asarray(x, jnp.float64)


def check_evaluation(o, z, vectors, at, factor, loss_name):
    def objective(z):
        q = quantize(z, vectors)
        return jnp.sum(straight_through(q) * double(o["in/cotangent"])) + factor * vqvae.commitment(q)

    q = quantize(z, vectors)
    o.check(f"{at}/quantize", straight_through(q))
    o.check(f"{at}/{loss_name}", (1 if loss_name == "diff" else factor) * vqvae.commitment(q))
    o.check(f"{at}/grad/z", jax.grad(objective)(z))
    return q


@pytest.mark.parametrize("path", files("vqvae", "quantize_rosinality"))
def test_quantiser_of_rosinality(path):
    o = Oracle(path)
    vectors, z = double(o["w/embed"]).T, double(o["in/z"])
    q = check_evaluation(o, z[0], vectors, "out/eval", 0.25, "diff")
    np.testing.assert_array_equal(q.codes, o["out/eval/indices"])
    o.check("out/eval/grad/z_diff_only", jax.grad(lambda z: vqvae.commitment(quantize(z, vectors)))(z[0]))
    decay, eps = o.config["decay"], o.config["eps"]
    zero = jnp.zeros((), jnp.int32)
    train = vqvae.Codebook(vectors, double(o["w/cluster_size"]), double(o["w/embed_avg"]).T, zero)
    fresh = vqvae.Codebook(vectors, jnp.zeros(len(vectors)), vectors, zero)
    for kind, book in (("train", train), ("train_fresh", fresh)):
        for i in range(o.config["steps"]):
            q = quantize(z[i], book.vectors)
            np.testing.assert_array_equal(q.codes, o[f"out/{kind}/{i}/indices"])
            if kind == "train":
                o.check(f"out/train/{i}/quantize", straight_through(q))
                o.check(f"out/train/{i}/diff", vqvae.commitment(q))
                o.check(f"out/train/{i}/embed_avg", vqvae.update(book, q, decay, eps, debias=False).total.T)
            book = vqvae.update(book, q, decay, eps, debias=False)
            o.check(f"out/{kind}/{i}/embed", book.vectors.T)
            o.check(f"out/{kind}/{i}/cluster_size", book.size)


@pytest.mark.parametrize("path", files("vqvae", "quantize_sonnet"))
def test_quantiser_of_sonnet(path):
    o = Oracle(path)
    vectors, z = double(o["w/embeddings"]).T, double(o["in/z"])
    n, cost, decay = o.config["n"], o.config["cc"], o.config["decay"]
    zeros = jnp.zeros((n, o.config["dim"]))
    book = vqvae.Codebook(vectors, jnp.zeros(n), zeros, jnp.zeros((), jnp.int32))
    for i in range(o.config["steps"]):
        q = quantize(z[i], book.vectors)
        at = f"out/train/{i}"
        np.testing.assert_array_equal(q.codes, o[f"{at}/encoding_indices"])
        o.check(f"{at}/quantize", straight_through(q))
        o.check(f"{at}/loss", cost * vqvae.commitment(q))
        o.check(f"{at}/perplexity", vqvae.perplexity(q.codes, n))
        book = vqvae.update(book, q, decay, o.config["eps"])
        share = 1 - decay ** (i + 1)
        o.check(f"{at}/embeddings", book.vectors.T)
        o.check(f"{at}/ema_cluster_size_hidden", book.size)
        o.check(f"{at}/ema_cluster_size_average", book.size / share)
        o.check(f"{at}/ema_dw_hidden", book.total.T)
        o.check(f"{at}/ema_dw_average", book.total.T / share)
        assert int(book.updates) == o[f"{at}/counter"]

    def plain(z, vectors):
        q = quantize(z, vectors)
        return vqvae.codebook_loss(q) + cost * vqvae.commitment(q), q

    loss, q = plain(z[0], vectors)
    o.check("out/plain/loss", loss)
    o.check("out/plain/perplexity", vqvae.perplexity(q.codes, n))
    np.testing.assert_array_equal(q.codes, o["out/plain/encoding_indices"])

    def objective(z, vectors):
        loss, q = plain(z, vectors)
        return jnp.sum(straight_through(q) * double(o["in/cotangent"])) + loss

    by_z, by_vectors = jax.grad(objective, (0, 1))(z[0], vectors)
    o.check("out/plain/grad/z", by_z)
    o.check("out/plain/grad/embeddings", by_vectors.T)


@pytest.mark.parametrize("path", files("vqvae", "vqvae2"))
def test_vqvae2(path):
    with jax.enable_x64(False):
        o = Oracle(path)
        net, variables, books = vqvae2(load_weights(path), **o.config)
        vectors, x = [b.vectors for b in books], o.nhwc("in/x")

        @jax.jit
        def run(params, x):
            out, levels = net.apply({"params": params}, x, vectors)
            diff = sum(vqvae.commitment(q) for q in levels)
            return jnp.mean(jnp.square(out - x)) + 0.25 * diff, (out, levels, diff)

        (loss, (out, (top, bottom), diff)), (by_params, by_x) = jax.value_and_grad(run, (0, 1), has_aux=True)(
            variables["params"], x
        )
        o.check("out/recon", out, image=True)
        o.check("out/diff", diff[None])
        o.check("out/loss", loss)
        for q, name in ((top, "t"), (bottom, "b")):
            np.testing.assert_array_equal(q.codes, o[f"out/id_{name}"])
            o.check(f"out/quant_{name}", q.vectors, image=True)
        o.check("out/grad/in/x", by_x, image=True)
        o.check("out/grad/w/enc_b.blocks.0.weight", by_params["enc_b"]["blocks_0"]["kernel"].transpose(3, 2, 0, 1))
        o.check("out/grad/w/enc_t.blocks.0.weight", by_params["enc_t"]["blocks_0"]["kernel"].transpose(3, 2, 0, 1))
        o.check("out/grad/w/upsample_t.weight", by_params["upsample_t"]["kernel"].transpose(2, 3, 0, 1))
        o.check("out/grad/w/dec_t.blocks.0.weight", by_params["dec_t"]["blocks_0"]["kernel"].transpose(3, 2, 0, 1))
        o.check("out/grad/w/quantize_conv_b.bias", by_params["quantize_conv_b"]["bias"])
        codes = [o["in/code_t"], o["in/code_b"]]
        decoded = net.apply(variables, [v[c] for v, c in zip(vectors, codes)], method="decode")
        o.check("out/decode_code", decoded, image=True)
