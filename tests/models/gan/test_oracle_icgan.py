"""IC-GAN's generator and discriminator, with features, classes or both, against the authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.objectives import gan
from tests.models.gan.test_oracle_biggan import arguments, check_blocks, moving, one_hot
from tests.models.whole import official_gradients
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("path", files("icgan", ""))
def test_generator_and_discriminator(path):
    o = Oracle(path)
    official = {player: o.weights(player) for player in "GD"}
    size = {"instance_sz": o.config["feature_dim"]} if "feature_dim" in o.config else {}
    of_g, of_d = arguments(o.config["G"]), arguments({**size, **o.config["D"]})
    g, variables = convert.biggan.generator(official["G"], **of_g)
    d, judge = convert.biggan.discriminator(official["D"], **of_d)
    z, label = jnp.asarray(o["in/z"], float), one_hot(o, "in/labels", g.classes)
    features = jnp.asarray(o["in/feats"], float) if "in/feats" in o else None

    @jax.jit
    def whole(z, features):
        y = g.apply(variables, label, features, method="embed")
        images, seen = g.apply(variables, z, label, features, mutable=["intermediates"], capture_intermediates=True)
        logits = [d.apply(judge, x, label, features).logits for x in (jnp.asarray(o.nhwc("in/x"), float), images)]
        return y, images, seen["intermediates"], logits

    y, images, seen, (real, fake) = whole(z, features)
    o.check("out/condition_embedding", y)
    o.check("out/eval/image", images, image=True)
    check_blocks(o, "out/eval/", seen)
    o.check("out/eval/D_real", real[:, None])
    o.check("out/eval/D_fake", fake[:, None])

    @jax.jit
    def g_loss(params, z, features):
        own = {**variables, "params": params}
        images, _ = g.apply(own, z, label, features, train=True, mutable=moving(variables))
        # The file's gradient by the features is that of G's part in them.
        logits = d.apply(judge, images, label, jax.tree.map(jax.lax.stop_gradient, features)).logits
        return gan.hinge.g(logits, logits), images

    (value, images), (by_params, by_z, by_features) = jax.value_and_grad(g_loss, (0, 1, 2), has_aux=True)(
        variables["params"], z, features
    )
    o.check("out/train/g_loss", value)
    o.check("out/train/image", images, image=True)
    o.check("out/grad/z", by_z)
    for name in (n for n in o.names if n.startswith("out/grad/feats_first")):
        o.check(name, by_features[:, : int(name.removeprefix("out/grad/feats_first"))])
    names = [n.removeprefix("out/grad/G.") for n in o.names if n.startswith("out/grad/G.")]
    place = lambda w: convert.biggan.generator(w, **of_g)[1]  # noqa: E731
    for name, grad in official_gradients(place, official["G"], by_params, names).items():
        o.check(f"out/grad/G.{name}", grad)
    o.check_whole()


@pytest.mark.parametrize("path", files("icgan", ""))
def test_the_embedding_of_a_condition_that_is_not_given_is_left_out(path):
    """The authors' generator has both embeddings whatever it is given."""
    o = Oracle(path)
    weights, given = o.weights("G"), arguments(o.config["G"])
    if not {"shared.weight", "shared_feat.weight"} <= set(weights):
        pytest.skip("a generator with one embedding")
    for option, kept in (
        ("class_cond", len(weights["shared_feat.weight"])),
        ("instance_cond", weights["shared.weight"].shape[1]),
    ):
        rest = given["shared_dim"] + given["shared_dim_feat"] - kept
        cut = {k: v[:, rest:] if k.endswith((".gain.weight", ".bias.weight")) else v for k, v in weights.items()}
        net, found = convert.biggan.generator(cut, **{**given, option: False})
        assert ("embedding" in found["params"], "feature_embedding" in found["params"]) == (
            option != "class_cond", option != "instance_cond",
        )  # fmt: skip
        assert bool(net.classes) == (option != "class_cond")


@pytest.mark.parametrize("path", files("icgan", ""))
def test_features_go_to_the_norms_as_they_are_without_an_embedding(path):
    o = Oracle(path)
    weights, given = o.weights("G"), arguments(o.config["G"])
    if "shared_feat.weight" not in weights:
        pytest.skip("a generator without such an embedding")
    g, variables = convert.biggan.generator(weights, **given)
    plain = {name: array for name, array in weights.items() if not name.startswith("shared_feat.")}
    other, own = convert.biggan.generator(plain, **{**given, "G_shared_feat": False})
    z, label, features = jnp.asarray(o["in/z"], float), one_hot(o, "in/labels", g.classes), jnp.asarray(o["in/feats"], float)
    embedded = g.apply(variables, None, features, method="embed")
    same = jax.jit(lambda: g.apply(variables, z, label, features) - other.apply(own, z, label, embedded))
    assert jnp.abs(same()).max() < 1e-6


@pytest.mark.parametrize("path", files("icgan", ""))
def test_norms_that_embed_the_class_have_rows_that_no_class_reaches(path):
    """Without a shared embedding the authors' norms have a row for each of shared_dim, not of n_classes."""
    o = Oracle(path)
    weights, given = o.weights("G"), arguments(o.config["G"])
    own = {**given, "class_cond": True, "instance_cond": False, "G_shared": False, "hier": False}
    rows = given["n_classes"] + 3
    rng = np.random.default_rng(0)
    norms = {k: rng.normal(size=(rows, len(v))) for k, v in weights.items() if k.endswith((".gain.weight", ".bias.weight"))}
    others = tuple(k.removesuffix("weight") for k in norms)  # the spectral norm's state goes with them
    plain = {k: v for k, v in weights.items() if not k.startswith(("shared.", *others))} | norms
    if given.get("hier"):  # the first chunk is all of z
        own["dim_z"] = weights["linear.weight"].shape[1]
    net, found = convert.biggan.generator(plain, **own)
    embeddings = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(found["params"]) if "embedding" in str(path)]
    assert len(embeddings) == len(norms)
    assert all(len(each) == net.classes == given["n_classes"] for each in embeddings)
