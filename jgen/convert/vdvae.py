"""openai/vdvae's checkpoints of CIFAR-10, ImageNet-32 and -64, and FFHQ."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, to_linen
from jgen.convert.options import ANY, check_options, required
from jgen.models.vdvae import VDVAE, check_layers

HEEDED = (
    "image_size", "image_channels", "num_mixtures", "bottleneck_multiple", "width", "zdim", "custom_width_str", "no_bias_above",
    "enc_blocks", "dec_blocks",
)  # fmt: skip
OF_TRAINING = (
    "dataset", "desc", "hps", "data_root", "save_dir", "restore_path", "restore_ema_path", "restore_log_path",
    "restore_optimizer_path", "ema_rate", "warmup_iters", "lr", "wd", "num_epochs", "n_batch", "adam_beta1", "adam_beta2",
    "iters_per_ckpt", "iters_per_print", "iters_per_save", "iters_per_images", "epochs_per_eval", "epochs_per_probe",
    "epochs_per_eval_save", "num_images_visualize", "num_variables_visualize", "num_temperatures_visualize", "grad_clip",
    "skip_threshold", "seed", "test_eval", "mpi_size", "local_rank", "rank", "logdir", "blur", "epochs", "port", "hparam_sets",
    "lr_prior", "wd_prior", "temperature", "scale_encblock",
)  # fmt: skip
INPUT = {
    "cifar10": (120.63838, 64.16736), "imagenet32": (116.2373, 69.37404), "imagenet64": (115.92961967, 69.37404),
    "ffhq_256": (112.8666757481, 69.84780273), "ffhq_1024": (111.8685, 69.9465),
}  # fmt: skip
"""Mean and deviation of the pixels 0..255, by which the encoder's input is standardised: (v - mean) / deviation."""
LOW_BIT = ("ffhq_256",)
"""Data sets whose target has 5 bits, 8 (v // 8) of pixels 0..255: its likelihood is `logistic_mixture` with low_bit=True."""
SIDES = {"cifar10": 32, "imagenet32": 32, "imagenet64": 64, "ffhq_256": 256, "ffhq_1024": 1024}
"""Sides of the data sets' images, which are in colour."""
DEFAULTS = {
    "num_mixtures": 10,
    "bottleneck_multiple": 0.25,
    "custom_width_str": "",
    "no_bias_above": 64,
    "width": 512,
    "zdim": 16,
}
"""Values of the authors' code where a configuration of hps.py has none."""


def vdvae(weights: Mapping[str, np.ndarray], **config: Any) -> tuple[VDVAE, dict[str, Any]]:
    """(network, variables) for the authors' hyper-parameters, by their names.

    A configuration of their hps.py is enough: what it leaves out is as in their code, sides and channels of images are those of
    `dataset`. Options of training are passed over. The encoder's input is standardised by INPUT[dataset], the target is in
    [-1, 1]. Raises UserError for an option that it has not, and for weights that do not fit.
    """
    check_options(config, HEEDED, dict.fromkeys(OF_TRAINING, ANY), "VDVAE")
    known = SIDES.get(config.get("dataset", ""))
    config = {**DEFAULTS, **({"image_size": known, "image_channels": 3} if known else {}), **config}
    required(config, HEEDED, "VDVAE")
    mixtures, channels = config["num_mixtures"], config["image_channels"]
    net = VDVAE(
        outputs=(10 if channels == 3 else 3) * mixtures,
        side=config["image_size"],
        encoder_layers=config["enc_blocks"],
        decoder_layers=config["dec_blocks"],
        width=config["width"],
        latents=config["zdim"],
        bottleneck=config["bottleneck_multiple"],
        widths=config["custom_width_str"] or "",
        no_bias_above=config["no_bias_above"],
    )
    check_layers(net)
    image = jnp.zeros((1, net.side, net.side, channels))
    noise = [jnp.zeros((1, *shape)) for shape in net.latent_shapes()]
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), image, noise))["params"]

    def path(name: str) -> tuple[str, ...]:
        name = re.sub(r"^(module\.)?(decoder\.)?(out_net\.)?", "", name)
        return linen_path(name)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if ".bias_xs." in f".{name}":
            return array[0].transpose(1, 2, 0)
        return array.reshape(-1) if len(shape) == 1 else to_linen(array, shape)

    return net, {"params": fill(shapes, weights, path, layout)}
