"""Quantisers and VQ-VAE-2 against Sonnet and rosinality's code."""

import jax
import jax.numpy as jnp
import pytest

from jgen.convert import load_weights
from jgen.convert.vqvae import vqvae2
from jgen.errors import UserError
from jgen.models.vqvae import quantize, straight_through
from jgen.objectives import vqvae
from tests.models.whole import check_gradients, without
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
    o.check_equal("out/eval/indices", q.codes)
    o.check("out/eval/grad/z_diff_only", jax.grad(lambda z: vqvae.commitment(quantize(z, vectors)))(z[0]))
    decay, eps = o.config["decay"], o.config["eps"]
    zero = jnp.zeros((), jnp.int32)
    train = vqvae.Codebook(vectors, double(o["w/cluster_size"]), double(o["w/embed_avg"]).T, zero)
    fresh = vqvae.Codebook(vectors, jnp.zeros(len(vectors)), vectors, zero)
    for kind, book in (("train", train), ("train_fresh", fresh)):
        for i in range(o.config["steps"]):
            q = quantize(z[i], book.vectors)
            o.check_equal(f"out/{kind}/{i}/indices", q.codes)
            if kind == "train":
                o.check(f"out/train/{i}/quantize", straight_through(q))
                o.check(f"out/train/{i}/diff", vqvae.commitment(q))
                o.check(f"out/train/{i}/embed_avg", vqvae.update(book, q, decay, eps, debias=False).total.T)
            book = vqvae.update(book, q, decay, eps, debias=False)
            o.check(f"out/{kind}/{i}/embed", book.vectors.T)
            o.check(f"out/{kind}/{i}/cluster_size", book.size)
    o.check_whole("out/min_margin")  # how far the nearest code is from being another one


@pytest.mark.parametrize("path", files("vqvae", "quantize_sonnet"))
def test_quantiser_of_sonnet(path):
    o = Oracle(path)
    vectors, z = double(o["w/embeddings"]).T, double(o["in/z"])
    n, cost, decay = o.config["n"], o.config["cc"], o.config["decay"]
    q = check_evaluation(o, z[0], vectors, "out/eval", cost, "loss")
    o.check_equal("out/eval/encoding_indices", q.codes)
    o.check("out/eval/perplexity", vqvae.perplexity(q.codes, n))
    if "out/eval/distances" in o:
        flat = z[0].reshape(-1, 1, z.shape[-1])
        o.check("out/eval/distances", jnp.sum(jnp.square(flat - vectors[None]), -1))
    zeros = jnp.zeros((n, o.config["dim"]))
    book = vqvae.Codebook(vectors, jnp.zeros(n), zeros, jnp.zeros((), jnp.int32))
    for i in range(o.config["steps"]):
        q = quantize(z[i], book.vectors)
        at = f"out/train/{i}"
        o.check_equal(f"{at}/encoding_indices", q.codes)
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
        o.check_equal(f"{at}/counter", book.updates)

    def plain(z, vectors):
        q = quantize(z, vectors)
        return vqvae.codebook_loss(q) + cost * vqvae.commitment(q), q

    loss, q = plain(z[0], vectors)
    o.check("out/plain/loss", loss)
    o.check("out/plain/perplexity", vqvae.perplexity(q.codes, n))
    o.check("out/plain/quantize", straight_through(q))
    o.check_equal("out/plain/encoding_indices", q.codes)

    def objective(z, vectors):
        loss, q = plain(z, vectors)
        return jnp.sum(straight_through(q) * double(o["in/cotangent"])) + loss

    by_z, by_vectors = jax.grad(objective, (0, 1))(z[0], vectors)
    o.check("out/plain/grad/z", by_z)
    o.check("out/plain/grad/embeddings", by_vectors.T)
    o.check_whole("out/min_margin")


@pytest.mark.parametrize("path", files("vqvae", "vqvae2"))
def test_vqvae2(path):
    with jax.enable_x64(False):
        o = Oracle(path)
        config, weights = without(o.config, "B", "image_size"), load_weights(path)
        net, variables, books = vqvae2(weights, **config)
        vectors, x = [b.vectors for b in books], o.nhwc("in/x")

        @jax.jit
        def run(params, x):
            how = dict(capture_intermediates=True, mutable=["intermediates"])
            (out, levels), seen = net.apply({"params": params}, x, vectors, **how)
            diff = sum(vqvae.commitment(q) for q in levels)
            return jnp.mean(jnp.square(out - x)) + 0.25 * diff, (out, levels, diff, seen["intermediates"])

        (loss, (out, (top, bottom), diff, seen)), (grads, by_x) = jax.value_and_grad(run, (0, 1), has_aux=True)(
            variables["params"], x
        )
        o.check("out/recon", out, image=True)
        o.check("out/diff", diff[None])
        o.check("out/loss", loss)
        for q, name in ((top, "t"), (bottom, "b")):
            o.check_equal(f"out/id_{name}", q.codes)
            o.check(f"out/quant_{name}", q.vectors, image=True)
        for name in (n for n in seen if f"out/{n}" in o):
            o.check(f"out/{name}", seen[name]["__call__"][0], image=True)
        o.check("out/grad/in/x", by_x, image=True)
        check_gradients(o, lambda w: vqvae2(w, **config)[1], weights, grads, at="out/grad/w/")
        codes = [o["in/code_t"], o["in/code_b"]]
        decoded = net.apply(variables, [v[c] for v, c in zip(vectors, codes)], method="decode")
        o.check("out/decode_code", decoded, image=True)
        o.check_whole("out/min_margin")
        with pytest.raises(UserError, match="n_codes: no option of VQVAE"):
            vqvae2(weights, **config, n_codes=4)
