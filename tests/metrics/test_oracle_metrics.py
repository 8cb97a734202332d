"""Every file of the metrics oracles, in float64 where they were computed in it."""

import ast
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import feature_nets, load_weights
from jgen.metrics import class_score, frechet, image_quality, kernel, linear_separability, neighbours, paths
from jgen.metrics.resize import resize
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("path", files("metrics", "fid"))
def test_frechet_distance(path):
    o = Oracle(path)
    for case in o.config["cases"]:
        moments = [frechet.feature_moments(o[f"in/{case}/{side}"].astype(np.float64), batch=16) for side in "xy"]
        for i, m in enumerate(moments, 1):
            o.check(f"out/{case}/mu{i}", m.mean, 1e-12)
            o.check(f"out/{case}/sigma{i}", m.covariance(), 1e-12)
        got = frechet.distance(*moments)
        o.check_close(f"out/{case}/fid_biased_cov", frechet.distance(*moments, ddof=0), 1e-3, 1e-3)
        for name, rtol in (("fid_symmetric_eig", 1e-6), ("fid", 1e-3), ("fid_clean", 1e-3)):
            o.check_close(f"out/{case}/{name}", got, rtol, rtol)
    given = [o[f"in/stats/{name}"] for name in ("mu1", "sigma1", "mu2", "sigma2")]
    o.check_close("out/stats/fid", frechet.frechet_distance(*given), 1e-6)
    o.check_whole()


@pytest.mark.parametrize("path", files("metrics", "kid"))
def test_kid(path):
    o = Oracle(path)
    real, fake = o["in/real"].astype(np.float64), o["in/fake"].astype(np.float64)
    pairs = list(zip(o["in/subset_idx_real"], o["in/subset_idx_fake"]))
    values = [kernel.mmd2(real[i], fake[j]) for i, j in pairs]
    o.check("out/kid_per_subset", values)
    o.check("out/kid", np.mean(values))
    o.check("out/kid_std_population", np.std(values))
    for name in o.under("out/poly"):  # another kernel, as its name says
        degree, gamma, coef0 = re.findall(r"(\d+)_gamma([\d.]+)_coef([\d.]+)_per_subset", name)[0]
        how = {"degree": int(degree), "gamma": float(gamma), "coef0": float(coef0)}
        o.check(f"out/poly{name}", [kernel.mmd2(real[i], fake[j], **how) for i, j in pairs])
    o.check_whole()


@pytest.mark.parametrize("path", files("metrics", "inception_score"))
def test_inception_score(path):
    o = Oracle(path)
    o.check("out/probs", jax.nn.softmax(o["in/logits"].astype(np.float64)))
    for splits in o.config["splits"]:
        mean, spread = class_score.inception_score(o["in/logits"], splits)
        o.check(f"out/splits{splits}/mean", mean)
        o.check_close(f"out/splits{splits}/std_population", spread, 1e-6, 1e-12)
        if f"out/splits{splits}/std_sample" in o:
            o.check(f"out/splits{splits}/std_sample", class_score.inception_score(o["in/logits"], splits, ddof=1)[1])
    o.check_whole()


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("path", files("metrics", "precision_recall"))
def test_precision_recall_density_coverage(path, block):
    o = Oracle(path)
    real, fake = o["in/real"].astype(np.float64), o["in/fake"].astype(np.float64)
    for k in o.config["ks"]:
        found, at = neighbours.manifold(real, fake, k, tile=block), f"out/k{k}"
        for name in ("precision", "recall"):
            o.check(f"{at}/{name}", getattr(found, name))
            o.check(f"{at}/prdc_{name}", getattr(found, name))
        o.check(f"{at}/prdc_density", found.density)
        o.check(f"{at}/prdc_coverage", found.coverage)
        o.check(f"{at}/real_radius_sq", found.real_radii)
        o.check(f"{at}/fake_radius_sq", neighbours.radii(fake, k, block))
        scores, nearest = neighbours.realism(real, fake, found.real_radii, block)
        o.check(f"{at}/realism_squared_ratio", scores)
        for name in ("fake_in_real", "real_in_fake"):
            o.check_equal(f"{at}/{name}_manifold", getattr(found, name))
        o.check_equal(f"{at}/nearest_real", nearest)
    for clamp in sorted({name.split("/")[0] for name in o.under("out/clamp")}):
        # Which k was pruned is not said: the one whose radii are those that were left.
        at, left = f"out/clamp{clamp}", o[f"out/clamp{clamp}/real_radius_sq"]
        k = next(k for k in o.config["ks"] if np.allclose(o[f"out/k{k}/real_radius_sq"][left > 0], left[left > 0]))
        radii = neighbours.radii(real, k, block)
        pruned = np.where(radii > np.percentile(radii, float(clamp)), 0, radii)
        o.check(f"{at}/real_radius_sq", pruned)
        o.check(f"{at}/precision", neighbours.manifold(real, fake, k, tile=block, real_radii=pruned).precision)
    o.check_whole()


@pytest.mark.parametrize("path", files("metrics", "linear_separability"))
def test_linear_separability(path):
    o = Oracle(path)
    keep, svm = o.config["num_keep"], {**o.config["svm"], "random_state": 0}
    found = linear_separability.separability({"z": o["in/latents"], "w": o["in/dlatents"]}, o["in/attr_logits"], keep, **svm)
    rtol = o.meta["rtol_suggested"]
    for space in "zw":
        o.check_close(f"out/score_{space}", found.scores[space], rtol["score"])
    for i in range(o.config["attributes"]):
        chosen, target = linear_separability.surest(o["in/attr_logits"][:, i].astype(np.float64), keep)
        o.check_equal(f"out/attr{i}/kept_index", chosen)
        o.check_equal(f"out/attr{i}/targets_kept_sorted", target)
        for space, name in (("z", "latents"), ("w", "dlatents")):
            at, points = f"out/attr{i}/{space}", o[f"in/{name}"][chosen]
            o.check_close(f"{at}/cond_entropy_bits", found.entropies[space][i], rtol["cond_entropy"], 1e-7)
            side = linear_separability.sides(points, target, **svm)
            o.check(f"{at}/joint", linear_separability.joint(side, target), 1e-6)
            if f"{at}/svm_coef" in o:
                plane = linear_separability.hyperplane(points, target, **svm)
                o.check(f"{at}/svm_coef", plane.coef_, rtol["svm_coef"])
                o.check(f"{at}/svm_intercept", plane.intercept_, rtol["svm_coef"])
    tables = o["in/tables"]
    o.check("out/table_cond_entropy", [linear_separability.conditional_entropy(t) for t in tables], 1e-5)
    o.check("out/table_entropy", [linear_separability.entropy(t) for t in tables], 1e-5)
    o.check("out/table_mutual_information", [linear_separability.mutual_information(t) for t in tables], 1e-5)
    o.check_whole()


@pytest.mark.parametrize("path", files("metrics", "ppl"))
def test_perceptual_path_length(path):
    o = Oracle(path)
    found = paths.path_length(o["in/dist"])
    o.check("out/ppl", found.mean, 1e-6)
    o.check("out/lo", found.low, 1e-7)
    o.check("out/hi", found.high, 1e-7)
    o.check_equal("out/num_kept", found.kept)
    toy = o.config["toy"]
    weights = {k: o[f"w/{k}"].astype(np.float64) for k in ("mapping", "synthesis", "features")}
    images = []

    def mapping(z):
        return jnp.repeat(jnp.tanh(z @ weights["mapping"].T)[:, None], toy["num_ws"], 1)

    def synthesis(ws):
        flat = jnp.tanh(ws.reshape(len(ws), -1) @ weights["synthesis"].T)
        return jnp.moveaxis(flat.reshape(-1, *toy["img"]), 1, -1)

    def features(x):
        images.append(x)
        return jnp.tanh(jnp.moveaxis(x, -1, 1).reshape(len(x), -1) @ weights["features"].T)

    z0, z1 = np.split(o["in/sampler/z"].astype(np.float64), 2)
    t = o["in/sampler/t"].astype(np.float64)
    for case in sorted({name.split("/")[0] for name in o.under("out/sampler/")}):
        space, sampling = case.split("_")
        images.clear()
        options = dict(space=space, sampling=sampling, epsilon=o.config["epsilon"])
        found = paths.path_distances(mapping, synthesis, features, z0, z1, t, **options)
        o.check(f"out/sampler/{case}/dist", found, 1e-5)
        o.check(f"out/sampler/{case}/img_first_row", np.concatenate([x[:, 0, :, 0] for x in images]), 1e-6)
    o.check("out/slerp", paths.slerp(jnp.asarray(z0), jnp.asarray(z1), jnp.asarray(t)), 1e-6)
    o.check_whole()


@pytest.mark.parametrize("path", files("metrics", "image_quality"))
def test_image_quality(path):
    o, q = Oracle(path), image_quality
    a, b, ms_a, ms_b = (o.nhwc(f"in/{k}").astype(np.float64) / 255 for k in ("a", "b", "ms_a", "ms_b"))
    k = {"k1": o.config["k1"], "k2": o.config["k2"]}
    for name, options in {"gauss11": {}, **o.config.get("extra", {})}.items():
        options = ast.literal_eval(options) if isinstance(options, str) else options
        own = {**k, **{name: options[name] for name in k if name in options}}
        padded, most = dict(window=window_of(options), border="reflect", **own), options.get("data_range", 1.0)
        o.check(f"out/ssim/{name}", q.ssim(a, b, most, **padded))
        o.check(f"out/ssim/{name}_contrast_structure", q.contrast_structure(a, b, most, **padded))
        if f"out/ssim/{name}_map" in o:
            o.check(f"out/ssim/{name}_map", q.ssim_map(a, b, most, **padded), image=True)
    for name in ("ssim/gauss11_interior", "pytorch_msssim/ssim_gauss11", "skimage_ssim/wang2004"):
        o.check(f"out/{name}", q.ssim(a, b, 1.0, **k))
    for name, sample in (("population", False), ("sample", True)):
        o.check(f"out/skimage_ssim/uniform7_{name}_cov", q.ssim(a, b, 1.0, window=q.uniform(7), sample_covariance=sample, **k))
    betas = tuple(float(v) for v in o.config["ms_betas"].split(","))
    padded = dict(border="reflect", per_channel=False, **k)
    o.check("out/ms_ssim/k11", q.ms_ssim(ms_a, ms_b, 1.0, weights=betas, **padded))
    three = (0.2, 0.3, 0.5)  # what the oracle's three scales were weighted by
    o.check("out/ms_ssim/k11_3scales", q.ms_ssim(ms_a, ms_b, 1.0, weights=three, **padded))
    o.check("out/ms_ssim/k11_simple", q.ms_ssim(ms_a, ms_b, 1.0, weights=betas, normalize=True, **padded))
    o.check("out/pytorch_msssim/ms_ssim_gauss11", q.ms_ssim(ms_a, ms_b, 1.0, weights=betas, **k))
    seven = dict(window=q.gaussian(7), weights=three, **k)
    o.check("out/pytorch_msssim/ms_ssim_win7_3scales", q.ms_ssim(ms_a, ms_b, 1.0, **seven))
    for name in ("per_image_skimage", "torchmetrics_per_image"):
        o.check(f"out/psnr/{name}", q.psnr(a, b, 1.0))
    o.check("out/psnr/batch_pooled", q.psnr(a, b, 1.0, pooled=True))
    o.check("out/psnr/batch_pooled_range2", q.psnr(a * 2 - 1, b * 2 - 1, 2.0, pooled=True))
    gradient = jax.grad(lambda a: jnp.mean(q.ssim(a, b, 1.0, border="reflect", **k)))(jnp.asarray(a))
    o.check("out/grad/ssim_mean_wrt_a", gradient, image=True)
    o.check_whole()


def window_of(options):
    """torchmetrics': of a Gaussian the deviation alone tells its size, whatever kernel_size says."""
    if not options.get("gaussian_kernel", True):
        return image_quality.uniform(options["kernel_size"])
    sigma = options.get("sigma", 1.5)
    return image_quality.gaussian(2 * int(3.5 * sigma + 0.5) + 1, sigma)


@pytest.mark.parametrize("path", files("metrics", "resize"))
def test_resize(path):
    o = Oracle(path)
    image = o["in/img"].astype(np.float64)[None]
    for name in o.names:
        if not name.startswith("out/") or name.startswith(("out/clean299", "out/legacy299")):
            continue
        _, size, kind = name.split("/")
        width, height = map(int, size.split("x"))
        method = {"torch_bilinear_noantialias": "bilinear_aliased", "torch_bicubic_noantialias": "bicubic_aliased"}
        how = method.get(kind, kind.split("_")[-1])
        got = np.asarray(resize(jnp.asarray(image), height, width, how, levels="uint8" in kind)[0])
        o.checked.add(name)
        inside = np.clip(o[name].astype(np.float64), 0, 255)  # PyTorch's overshoots are not clipped
        assert np.abs(got - inside).max() <= (1 if "uint8" in kind else 2e-3), name
    clean = np.asarray(resize(jnp.asarray(image), 299, 299)[0])
    step = o.config["subsample"]
    o.check_close("out/clean299_subsampled", clean[::step, ::step], 0, 2e-3)
    o.check("out/clean299_channel_mean", clean.mean((0, 1)), 1e-5)
    legacy = np.asarray(resize(jnp.asarray(image), 299, 299, "bilinear_aliased")[0])
    o.check_close("out/legacy299_subsampled", legacy[::step, ::step], 0, 2e-3)
    o.check_whole()


def seeded_trunk(o):
    """The trunk that a file does not store but says how to draw; checked against the numbers it does store."""
    random, weights = np.random.RandomState(o.config["trunk_seed"]), {}
    for name, shape in o.config["convs"]:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"net.{name}.weight"] = (random.standard_normal(shape) * scale).astype(np.float32)
        weights[f"net.{name}.bias"] = (0.1 * random.standard_normal(shape[0])).astype(np.float32)
    values = list(weights.values())
    np.testing.assert_allclose(values[0].reshape(-1)[:8], o["check/first_weights"], rtol=1e-6)
    np.testing.assert_allclose(values[-1][-8:], o["check/last_bias"], rtol=1e-6)
    return weights


@pytest.mark.parametrize("path", files("metrics", "lpips"))
def test_lpips(path):
    with jax.enable_x64(False):
        o = Oracle(path)
        weights = load_weights(path) | (seeded_trunk(o) if o.config["trunk_seed"] is not None else {})
        net, variables = feature_nets.lpips(weights, o.config.get("version", "0.1"))
        a, b = o.nhwc("in/a"), o.nhwc("in/b")

        @jax.jit
        def outputs(variables, a, b):
            def run(a, b, method="__call__", **kwargs):
                return net.apply(variables, a, b, method=method, **kwargs)

            gradient = jax.grad(lambda a: jnp.sum(run(a, b)))(a)
            unweighted = sum(run(a, b, method="layers", linear=False))
            return run(a, b), run(a, b, method="layers"), run(a, b, method="maps"), gradient, unweighted

        total, layers, maps, gradient, unweighted = outputs(variables, a, b)
        o.check("out/lpips", total)
        o.check("out/lpips_normalize_flag", total)  # the same images, given to it in [0, 1]
        for i, layer in enumerate(layers):
            o.check(f"out/layer{i}", layer)
        o.check("out/grad/a_of_sum", gradient, image=True)
        o.check("out/baseline_no_linear", unweighted)
        size = a.shape[1:3]
        spatial = sum(jax.image.resize(m, (len(a), *size), "bilinear") for m in maps)
        o.check("out/spatial", spatial[..., None], image=True)
        taps = net.apply(variables, a, method="taps")
        for i, tap in enumerate(taps):
            o.check(f"out/feature_mean_layer{i}", tap.mean((1, 2))[:, : o[f"out/feature_mean_layer{i}"].shape[1]])
        o.check_whole()
