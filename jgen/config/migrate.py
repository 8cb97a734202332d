"""Configs of runs that earlier versions wrote, in today's form: a table of where every option went."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jgen.config.samplers import SAMPLERS

FORMAT = 5
"""Format of config.json: 1 had all options of an experiment in one flat group, 2 other names of samplers' options, 3 no groups
for the optimizers of a first stage and of a classifier, 4 LOGAN's options of a move in CS-GAN too."""

UNET = "channels channel_mult num_res_blocks dropout attention head_channels scale_shift_norm resblock_updown"
CHAIN = "schedule diffusion_steps prediction"
OPTIMIZER = "learning_rate warmup final_learning_rate clip ema"
LABELS = "conditional drop_label"
GAN = "z_dim channel_base channel_max conditional learning_rate ema_kimg ema_rampup"
AUGMENT = "augment ada_target ada_kimg"
STYLE = "w_dim mapping_layers mapping_lr_mul r1_gamma r1_every path_weight path_every mixing"
GROWTH = "first_steps last_steps fade"
DIFFUSION = {"network": UNET, "labels": LABELS, "chain": CHAIN, "optimizer": OPTIMIZER}

GROUPS: Mapping[str, Mapping[str, str]] = {
    "ddpm": DIFFUSION,
    "improved_ddpm": DIFFUSION,
    "guided": {
        **DIFFUSION,
        "own": "classifier_steps classifier_network classifier_channels classifier_stride classifier_depth "
        "classifier_learning_rate classifier_weight_decay",
    },
    "edm": {
        "network": "channels channel_mult num_res_blocks dropout",
        "edm": "network attention sigma_data mean deviation sigma_min sigma_max augment",
        "labels": LABELS,
        "optimizer": OPTIMIZER,
    },
    "flow_matching": {"network": UNET, "labels": LABELS, "optimizer": OPTIMIZER},
    "latent_diffusion": {
        "first": "first first_channels first_mult first_blocks first_attention latent_channels kl_weight codes pixel_loss "
        "adversarial adversarial_from perceptual perceptual_trunk perceptual_heads",
        "prior": "prior_steps scale prior learn_variance condition drop_label patch depth width text_width",
        "network": UNET,
        "chain": CHAIN,
        "optimizer": OPTIMIZER,
    },
    "cascade": {
        "cascade": "sizes objective most_augment blur",
        "network": f"{UNET} num_heads",
        "labels": LABELS,
        "chain": CHAIN,
        "optimizer": OPTIMIZER,
    },
    "score_sde": {
        "sde": "sde network likelihood beta_min beta_max sigma_min sigma_max",
        "network": UNET,
        "labels": LABELS,
        "optimizer": OPTIMIZER,
    },
    "ncsn": {"network": "version channels levels sigma_max sigma_min objective", "optimizer": OPTIMIZER},
    "classifier": {
        "network": "network channels stride depth attention dropout shift smoothing noisy weight_decay",
        "chain": CHAIN,
        "optimizer": OPTIMIZER,
    },
    "pixelcnn": {
        "network": "network output mixtures channels layers levels hidden dropout conditional",
        "optimizer": OPTIMIZER,
    },
    "vae": {
        "network": "kind likelihood c latents widths gated channels",
        "loss": "beta free_bits kl_warmup importance_samples bound_samples noise sparsity",
        "optimizer": OPTIMIZER,
    },
    "vqvae": {
        "network": "levels stride channels blocks block_channels code_size codes ema beta decay learning_rate",
        "prior": "prior_steps prior_channels prior_layers prior_learning_rate conditional",
    },
    "gan": {
        "gan": "network width z_dim loss penalty penalty_weight critic_steps conditioning augment consistency learning_rate "
        "beta_1 beta_2 ema",
    },
    "progan": {"gan": GAN, "augmentation": AUGMENT, "growth": GROWTH, "critic": "penalty_weight drift"},
    "stylegan": {"gan": GAN, "augmentation": AUGMENT, "style": STYLE, "growth": GROWTH},
    "stylegan2": {
        "gan": GAN,
        "augmentation": AUGMENT,
        "style": STYLE,
        "architecture": "generator discriminator group",
    },
}
"""Experiment -> group -> the options that stand in it now. Those in none are the experiment's own, as before."""

ADDED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "classifier": {"optimizer": {"final_learning_rate": 0.0, "clip": 1.0}},
    "vae": {"optimizer": {"warmup": 200}},
}
"""Options that were fixed numbers then."""

RENAMED: Mapping[str, Mapping[str, str]] = {"vae": {"clip_norm": "clip"}}

SOLVER_RENAMED = {"of": "parameterization"}
"""Options of samplers up to format 2."""

DROPPED = {"evaluation_steps"}
"""Options of earlier versions that changed nothing of a run itself."""

WITHOUT_EFFECT: Mapping[str, set[str]] = {
    "edm": {"head_channels", "scale_shift_norm", "resblock_updown"},
    "improved_ddpm": {"min_snr", "learn_variance"},
    "latent_diffusion": {"conditional"},
}
"""Options that the experiment did not heed."""

OWN_CHAIN = ("ddpm", "improved_ddpm", "guided", "latent_diffusion", "cascade")
GRIDS = {"edm": "karras", "flow_matching": "karras", "ncsn": "karras"}
"""The spacing that suited a model; log_snr where none is named."""


def migrated(stored: dict[str, Any]) -> dict[str, Any]:
    """The content of config.json, with the config in today's form."""
    version = stored.get("format", 1)
    if version >= FORMAT:
        return stored
    name = stored["module"].removeprefix("experiments.")
    if version > 1:
        config = stored["config"] if version > 3 else _with_optimizers(name, _with_new_names(stored["config"]))
        return {**stored, "format": FORMAT, "config": _of_move(name, config)}
    values = {RENAMED.get(name, {}).get(key, key): value for key, value in stored["config"].items()}
    dropped = DROPPED | WITHOUT_EFFECT.get(name, set())
    values = {key: value for key, value in values.items() if key not in dropped}
    config = _grouped(values, GROUPS.get(name, {}), ADDED.get(name, {}))
    if isinstance(config.get("sampling"), dict) and "sampler" in config["sampling"]:
        config["sampling"] = _sampling(name, config["sampling"])
    return {**stored, "format": FORMAT, "config": _with_optimizers(name, _with_new_names(config))}


def _of_move(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of csgan without LOGAN's options, which it did not heed."""
    move = config.get("move")
    if name != "csgan" or not isinstance(move, dict):
        return dict(config)
    return {**config, "move": {key: value for key, value in move.items() if key not in ("damping", "moved")}}


def _with_optimizers(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of guided or latent_diffusion with the settings of its other stage's optimizer, which were fixed numbers."""
    fixed = {"warmup": 100, "clip": 1.0, "ema": 0.998}
    own, first = config.get("own"), config.get("first")
    if name == "guided" and isinstance(own, dict) and "classifier_learning_rate" in own:
        own = dict(own)
        rate = {"learning_rate": own.pop("classifier_learning_rate"), "final_learning_rate": 0.0, **fixed}
        return {**config, "own": own, "classifier_optimizer": rate}
    if name == "latent_diffusion" and isinstance(first, dict):
        data = config.get("data")
        width, batch = first.get("first_channels", 16), data.get("batch_size", 128) if isinstance(data, dict) else 128
        wide = isinstance(width, int) and isinstance(batch, int) and width >= 64
        rate = {"learning_rate": 4.5e-6 * batch if wide else 2e-3, "final_learning_rate": 0.1, **fixed}
        return {**config, "first_optimizer": rate}
    return dict(config)


def _with_new_names(config: Mapping[str, Any]) -> dict[str, Any]:
    sampling = config.get("sampling")
    if not isinstance(sampling, dict) or not isinstance(sampling.get("solver"), dict):
        return dict(config)
    solver = {SOLVER_RENAMED.get(key, key): value for key, value in sampling["solver"].items()}
    return {**config, "sampling": {**sampling, "solver": solver}}


def _grouped(values: Mapping[str, Any], groups: Mapping[str, str], added: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Flat options in their groups."""
    place = {option: group for group, options in groups.items() for option in options.split()}
    own = {key: value for key, value in values.items() if key not in place}
    found: dict[str, dict[str, Any]] = {group: dict(added.get(group, {})) for group in {**groups, **added}}
    for key, value in values.items():
        if key in place:
            found[place[key]][key] = value
    return {**own, **found}


def _sampling(name: str, old: Mapping[str, Any]) -> dict[str, Any]:
    """Options of sampling, all in one group then: the chosen sampler's own, guidance's, editing's, and the rest."""
    row = SAMPLERS[old["sampler"]] if old["sampler"] in SAMPLERS else None
    if row is None:
        return dict(old)
    own_grid = old.get("grid") == GRIDS.get(name, "log_snr")
    values = dict(old)
    if own_grid or (row.coordinates == "discrete" and name in OWN_CHAIN):
        values["grid"] = "auto"
    if row.coordinates == "discrete" and name in OWN_CHAIN:
        values["sigma_min"] = 0.0
    values = {SOLVER_RENAMED.get(key, key): value for key, value in values.items()}
    names = {field.name for field in dataclasses.fields(row)}
    solver = {"sampler": row.sampler, **{key: values[key] for key in names if key in values}}
    guide = "guidance guidance_from guidance_to classifier classifier_scale threshold"
    found = {
        "solver": solver,
        "label": values.get("label", -1),
        "guide": {key: values[key] for key in guide.split() if key in values},
        "edit": {key: values[key] for key in ("mask", "edit_from") if key in values},
    }
    if "bound_steps" in values:
        found["bound"] = {"bound_steps": values["bound_steps"], "bound_variance": values.get("variance", "auto")}
    if name == "score_sde" and "tolerance" in values:
        found["likelihood_tolerance"] = values["tolerance"]
    own = {"latent_diffusion": ("prompt",), "cascade": ("samplers", "steps_each", "augment")}.get(name, ())
    return found | {key: values[key] for key in own if key in values}
