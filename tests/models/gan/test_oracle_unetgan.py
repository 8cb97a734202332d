"""U-Net GAN's discriminator, CutMix and the losses of its step against the authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.objectives import cutmix, gan
from tests.models.gan.test_oracle_biggan import arguments, check_blocks, check_state, one_hot, value_of
from tests.models.whole import check_gradients
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

OF_THE_FILE = ("loss_variants", "epoch", "warmup_epochs")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def levels(o, name):
    return jnp.asarray(o.nhwc(name).astype(float) / 127.5 - 1)


class Judged:
    """D's logits of all images that a file has, from one program, and the gradients of any loss of them."""

    def __init__(self, o):
        real, fake = levels(o, "in/real_u8"), levels(o, "in/fake_u8")
        maps = o["in/cutmix_map"][:, 0] if "in/cutmix_map" in o else np.ones(real.shape[:3])
        given = arguments({k: v for k, v in o.config.items() if k not in OF_THE_FILE})
        self.place = lambda w: convert.biggan.unet_discriminator(w, **given)[1]
        net, variables = convert.biggan.unet_discriminator(o.weights(), **given)
        self.variables, self.maps = variables, jnp.asarray(maps, float)
        images = jnp.concatenate([real, fake, fake, cutmix.mix(self.maps, real, fake)])
        of_real, of_fake = (one_hot(o, f"in/labels_{k}", net.classes) for k in ("real", "fake"))
        label = None if of_real is None else jnp.concatenate([of_real, of_fake, of_real, of_real])

        @jax.jit
        def judge(params, x):
            moves = ["spectral", "intermediates"]
            out, state = net.apply({**variables, "params": params}, x, label, mutable=moves, capture_intermediates=True)
            return out.logits, state

        logits, self.pull, self.state = jax.vjp(judge, variables["params"], images, has_aux=True)
        self.logits = self.split(logits)

    @staticmethod
    def split(logits):
        """{the images' name: (logits of pixels, of images)}; "fake" are judged by their own labels, "paired" by the reals'."""
        parts = [jnp.split(x, 4) for x in logits]
        return {name: tuple(each[i] for each in parts) for i, name in enumerate(("real", "fake", "paired", "mixed"))}

    def gradients(self, loss):
        """({what loss of the logits reports}, gradients by weights, by images {name: gradient})."""

        def whole(*logits):
            return loss(self.split(logits))

        joined = [jnp.concatenate([pair[i] for pair in self.logits.values()]) for i in (0, 1)]
        (_, found), cotangents = jax.value_and_grad(whole, (0, 1), has_aux=True)(*joined)
        by_params, by_x = self.pull(cotangents)
        return found, by_params, dict(zip(self.logits, jnp.split(by_x, 4)))


@pytest.mark.parametrize("path", files("unetgan", "discriminator"))
def test_discriminator(path):
    o = Oracle(path)
    judged = Judged(o)
    pixels, image = judged.logits["real"]
    wide = pixels[:, None]
    o.check("out/eval/pixel_logits", wide)
    o.check("out/eval/pixel_logits_mean", jnp.mean(pixels, (1, 2)))
    for mode in ("eval", "train"):  # the same: both take the one step of the power method
        o.check(f"out/{mode}/encoder_logit", image[:, None])
    for name in (n for n in o.names if n.startswith("out/train/pixel_logits_stride")):
        every = int(name.rpartition("stride")[2])
        o.check(name, wide[:, :, ::every, ::every])
    check_blocks(o, "out/eval/", judged.state["intermediates"])
    check_state(o, "out/train_state/", judged.variables, judged.state, {})
    mean = lambda parts: (jnp.mean(parts["real"][0]) + jnp.mean(parts["real"][1]), None)  # noqa: E731
    _, by_params, by_x = judged.gradients(mean)
    for name in (n for n in o.names if n.startswith("out/grad/x_stride")):
        every = int(name.rpartition("stride")[2])
        o.check(name, by_x["real"][:, ::every, ::every], image=True)
    check_gradients(o, judged.place, o.weights(), by_params, apart=("x", "loss_"))
    if "in/cutmix_draws_beta_x_y_flip" in o:
        check_maps(o)
    check_losses(o, judged)
    o.check_whole()


def check_maps(o):
    share, row, column, flip = o["in/cutmix_draws_beta_x_y_flip"].T
    side = o["in/cutmix_map"].shape[-1]
    draws = cutmix.Draws(jnp.asarray(share), jnp.asarray(row), jnp.asarray(column), jnp.asarray(flip))
    np.testing.assert_array_equal(cutmix.boxes(draws, side, side), o["in/cutmix_map"][:, 0])


def d_loss(maps, *, mixing=False, consistent=False, plain=True, share=1.0):
    """D's loss as a function of the logits; fakes are judged by the reals' labels where anything is mixed."""

    def loss(parts):
        trues, fakes = parts["real"], parts["paired" if mixing or consistent else "fake"]
        found, total = {}, jnp.zeros(())
        if plain:
            for kind, a, b in zip(("2d", "middle"), trues, fakes):
                found[f"D_loss_real_{kind}"] = gan.non_saturating.d(a, jnp.full(b.shape, -1e9))
                found[f"D_loss_fake_{kind}"] = gan.non_saturating.d(jnp.full(a.shape, 1e9), b)
                total += 0.5 * gan.non_saturating.d(a, b)
            for side in ("real", "fake"):
                found[f"D_loss_{side}"] = found[f"D_loss_{side}_2d"] + found[f"D_loss_{side}_middle"]
        if mixing:
            found["D_loss_mixed_2d"], of_image = cutmix.mixed_loss(*parts["mixed"], maps)
            found["mixed_middle_loss"] = share * of_image
            total += found["D_loss_mixed_2d"] + found["mixed_middle_loss"]
        if consistent:
            found["consistency"] = share * cutmix.consistency(parts["mixed"][0], trues[0], fakes[0], maps)
            total += found["consistency"]
        return total, found

    return loss


def g_loss(parts):
    pixels, image = (gan.non_saturating.g(x, x) for x in parts["fake"])
    whole = 0.5 * (pixels + image)
    return whole, {"G_loss": whole, "G_loss_fake_2d": pixels, "G_loss_fake_middle": image}


def check_losses(o, judged):
    g_found, _, by_images = judged.gradients(g_loss)
    for name, text in o.config.get("loss_variants", {}).items():
        options = value_of(text) if isinstance(text, str) else text
        mixed = options.get("unet_mixup", False)  # without it the others have no effect
        kinds = ("consistency_loss", "consistency_loss_and_augmentation", "full_batch_mixup", "slow_mixup")
        alone, too, whole_batch, slow = (mixed and options.get(kind, False) for kind in kinds)
        slow = slow and not whole_batch
        share = min(1.0, o.config["epoch"] / o.config["warmup_epochs"]) if slow else 1.0
        how = dict(mixing=mixed and not alone, consistent=alone or too, plain=not whole_batch, share=share)
        found, grads, _ = judged.gradients(d_loss(judged.maps, **how))
        for kind, value in {**found, **g_found}.items():
            if f"out/loss/{name}/{kind}" in o:
                o.check(f"out/loss/{name}/{kind}", value)
        at = f"out/grad/loss_{name}/"
        check_gradients(o, judged.place, o.weights(), grads, at=at, apart=("G_wrt_shift",))
        if f"{at}G_wrt_shift" in o:
            o.check(f"{at}G_wrt_shift", jnp.sum(by_images["fake"]).reshape(o[f"{at}G_wrt_shift"].shape))
