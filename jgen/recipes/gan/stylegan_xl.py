"""StyleGAN-XL (Sauer et al. 2022, arXiv:2202.00273): a stem and its growth against heads on a frozen network's features.

A stage for each side. A later one begins from the averaged G of the one before: mapping, input and the layers that are not
critically sampled stay as they are, new layers are trained, against a fresh D. Averages of magnitudes stay 1; w_avg, a row for
each class, moves in D's updates alone. Losses are means over the batch, and so is guidance: the authors' code adds a batch's
rows up by an accident (see `jgen.objectives.gan.summed`), so that their weight of guidance is relative to a larger loss.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.arrays import shard_like
from jgen.config import DataConfig, StyleSampling, TrainConfig
from jgen.config.projected import FeatureHeadsConfig
from jgen.config.stylegan_xl import StyleGANXLConfig
from jgen.edit.space import StyleSpace
from jgen.errors import UserError
from jgen.models.gan import progan, stylegan_xl
from jgen.models.gan.alias_free_layers import Design, Layer, alias_free_layers, grown_layers
from jgen.models.gan.stylegan2 import repeat
from jgen.nn.precision import in_dtype
from jgen.nn.resample import downsample
from jgen.objectives.adversarial import GAN, discriminator_loss, generator_loss
from jgen.objectives.style_losses import added, late_path_loss, path_state
from jgen.objectives.stylegan import Draws
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.alias_free import still
from jgen.recipes.gan.animations import sticking
from jgen.recipes.gan.class_guidance import guided
from jgen.recipes.gan.class_table import WIDTH, class_table, read_class_table
from jgen.recipes.gan.feature_heads import FeatureHeads, SeveralHeads, feature_heads, hinge_of
from jgen.recipes.gan.images import cropped, pad, shape_of
from jgen.recipes.gan.projected import hole_augment
from jgen.train import Phase
from jgen.train.lazy import ema_decay
from jgen.train.rates import rated, rated_adam
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, Extra, Key, Params, PyTree


class XLRecipe(NamedTuple):
    """The settings of a run."""

    own: StyleGANXLConfig
    heads: FeatureHeadsConfig
    data: DataConfig
    sampling: StyleSampling


def layers_by_stage(own: StyleGANXLConfig, side: int, channels: int) -> list[tuple[tuple[Layer, ...], tuple[str, ...]]]:
    """(layers, names of those kept of the stage before) of the stem and of every later stage, up to images of `side`.

    Raises UserError for a stem that doesn't double to the side, and as `grown_layers` does.
    """
    if own.stem_side > side or side % own.stem_side:
        raise UserError(f"stem_side={own.stem_side}: must double to the images' {side} pixels (the next power of 2)")
    widths: dict[str, Any] = {"channel_base": own.channel_base, "channel_max": own.channel_max}
    design = Design(margin_size=own.margin)
    layers = alias_free_layers(own.stem_side, channels, num_layers=own.stem_layers, design=design, **widths)
    found: list[tuple[tuple[Layer, ...], tuple[str, ...]]] = [(layers, ())]
    while layers[-1].out_size < side:
        kept, new = grown_layers(layers, 2 * layers[-1].out_size, channels, own.head_layers, **widths)
        layers = (*kept, *new)
        found.append((layers, tuple(layer.name for layer in kept)))
    return found


def xl_generator(own: StyleGANXLConfig, layers: tuple[Layer, ...], classes: int) -> stylegan_xl.Generator:
    """The generator of some layers; classes: 0 for an unconditional one."""
    return stylegan_xl.Generator(layers, own.z_dim, classes, own.w_dim, embedding=WIDTH)


@dataclass(frozen=True)
class XLModel:
    """The players of a stage. Images have the stage's side; samples the set's, their pixels repeated."""

    g: stylegan_xl.Generator
    d: FeatureHeads | SeveralHeads
    data: DataConfig
    kept: tuple[str, ...] = ()
    """Layers of the stage before, which are not trained."""
    class_file: str = ""
    """The embeddings of the classes, where they are not means over the set's images."""

    def map(self, params: PyTree, extra: Extra, z: Array, label: Array | None) -> Array:
        """w [B, w_dim] of G's weights."""
        return self.g.apply({"params": params, "buffers": extra["g"]}, z, label, method="map")  # pyright: ignore

    def synthesize(self, params: Params, extra: Extra, ws: Array, transform: Array | None = None) -> Array:
        """G's images of ws."""
        variables = {"params": params["g"], "buffers": extra["g"]}
        return self.g.apply(variables, ws, transform, method="synthesize")  # pyright: ignore[reportReturnType]

    def label(self, condition: Condition) -> Array | None:
        """Classes [B] of a conditional network."""
        return condition.label if self.g.c_dim else None

    def prepared(self, extra: Extra, images: Array) -> Array:
        """Images of the set at the stage's side."""
        images = pad(images, shape_of(self.data, False).side)
        while images.shape[1] > self.g.resolution:
            images = downsample(images)
        return images

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Fresh players, and the classes' embeddings where they are conditional."""
        keys, classes = jax.random.split(key), self.g.c_dim
        label = jnp.zeros(1, jnp.int32) if classes else None
        made = self.g.init(keys[0], jnp.zeros((1, self.g.z_dim)), label)
        params, own = self.d.init(keys[1], self.g.image_channels)
        buffers = made["buffers"]
        if classes:
            side = self.d.config.feature_size
            table = jnp.asarray(read_class_table(self.class_file, classes) if self.class_file else class_table(self.data, side))
            buffers, own = _with_table(buffers, table), _with_table(own, table)
        w_avg = jnp.zeros((classes, self.g.w_dim) if classes else self.g.w_dim)
        return {"g": made["params"], **params}, {"g": buffers, "d": own, "w_avg": w_avg}

    def gan(self, state: Extra) -> GAN:
        """Both players; state: further entries of extra at the start."""

        def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
            params, extra = self.init(key, batch)
            return params, {**extra, **state}

        def mapping(params: Params, extra: Extra, z: Draws, condition: Condition) -> tuple[Array, Extra]:
            label = self.label(condition)
            w = self.map(params["g"], extra, z.z, label)
            return repeat(w, self.g.num_ws), {"w_avg": stylegan_xl.track(extra["w_avg"], w, label)}

        def generate(params: Params, extra: Extra, z: Draws, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
            ws, moved = mapping(params, extra, z, condition)
            return self.synthesize(params, extra, ws), moved if train else {}

        def draws(z: Array) -> Draws:
            return Draws(z, None, self.g.num_ws, {})

        shape = (self.g.z_dim,)
        return GAN(
            init=init,
            latents=lambda keys, condition: draws(samplers.noise(keys, shape)),
            train_latents=lambda key, images, rows: draws(shard_like(jax.random.normal(key, (rows, *shape)), images)),
            generate=generate,
            discriminate=self.d.discriminate,
            map=mapping,
            synthesize=lambda params, extra, ws, z: self.synthesize(params, extra, ws),
            classes=self.g.c_dim,
            state_moves_in=frozenset({"d"}),
            prepare=self.prepared,
        )

    def styles(self, params: Params, extra: Extra, keys: Key, options: StyleSampling) -> Array:
        """ws [B, num_ws, D] of one key an image, pulled to their class's centre by psi."""
        label = samplers.class_labels(keys, options.label, self.g.c_dim)
        w = self.map(params["g"], extra, samplers.noise(keys, (self.g.z_dim,)), label)
        return stylegan_xl.pull(repeat(w, self.g.num_ws), extra["w_avg"], label, options.psi)

    def sample(self, params: Params, extra: Extra, keys: Key, options: StyleSampling) -> Array:
        """The stage's sampler."""
        ws = self.styles(params, extra, keys, options)
        images = progan.enlarge(self.synthesize(params, extra, ws), shape_of(self.data, False).side)
        return jnp.clip(cropped(images, self.data.shape[0]), -1, 1)

    def moved(self, params: Params, extra: Extra, keys: Key, options: StyleSampling, transform: Array) -> Array:
        """Images of the stage's side whose input is moved."""
        return self.synthesize(params, extra, self.styles(params, extra, keys, options), transform)

    def space(self) -> StyleSpace:
        """The styles, for inversion and editing; each class has a mean, and without one it is that of all classes."""

        def styles(params: Params, extra: Extra, keys: Key, label: int = -1, z: Array | None = None) -> Array:
            labels = samplers.class_labels(keys, label, self.g.c_dim)
            z = samplers.noise(keys, (self.g.z_dim,)) if z is None else z
            return repeat(self.map(params["g"], extra, z, labels), self.g.num_ws)

        def synthesize(params: Params, extra: Extra, ws: Array, noise: Any = None) -> Array:
            images = progan.enlarge(self.synthesize(params, extra, ws), shape_of(self.data, False).side)
            return cropped(images, self.data.shape[0])

        def mean(extra: Extra, label: int = -1) -> Array:
            means = extra["w_avg"].reshape(-1, self.g.w_dim)
            return means[label] if label >= 0 and self.g.c_dim else jnp.mean(means, 0)

        return StyleSpace(self.g.num_ws, self.g.w_dim, styles, synthesize, mean, self.g.z_dim, {}, ("w_avg", "g"))

    def begin(self, params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        """The stage before, its averaged G cut off and grown; D is fresh. Raises UserError for a stem of other layers."""
        missing = sorted(set(self.kept) - set(params["g"]["synthesis"]))
        if missing:
            raise UserError(f"stem: has no layer {missing[0]}; give the run the stem's settings")

        def joined(before: PyTree, new: PyTree) -> PyTree:
            kept = {name: before["synthesis"][name] for name in ("input", *self.kept)}
            return {**new, **{k: v for k, v in before.items() if k != "synthesis"}, "synthesis": {**new["synthesis"], **kept}}

        buffers = joined(extra["g"], fresh_extra["g"])
        return {**fresh, "g": joined(params["g"], fresh["g"])}, {**fresh_extra, "g": buffers, "w_avg": extra["w_avg"]}

    def trained(self, params: PyTree) -> PyTree:
        """ "head" or "stem" for every weight of G."""
        stem = {"input", *self.kept} if self.kept else set()

        def part(path: Any, leaf: Array) -> str:
            names = [getattr(entry, "key", "") for entry in path]
            return "stem" if self.kept and (names[0] == "mapping" or names[1] in stem) else "head"

        return jax.tree_util.tree_map_with_path(part, params)


def _with_table(tree: PyTree, table: Array) -> PyTree:
    """Variables with the table in place of every buffer named "embedding"."""

    def place(path: Any, leaf: Array) -> Array:
        return table if getattr(path[-1], "key", "") == "embedding" else leaf

    return jax.tree_util.tree_map_with_path(place, tree)


def xl_stage(recipe: XLRecipe, layers: tuple[Layer, ...], kept: tuple[str, ...], train: TrainConfig) -> Stage:
    """The stage of some layers, of which those kept are not trained."""
    own, data = recipe.own, recipe.data
    classes = shape_of(data, own.conditional).classes
    g = in_dtype(xl_generator(own, layers, classes), train.dtype)
    model = XLModel(g, feature_heads(recipe.heads, classes, embedding=WIDTH, dtype=train.dtype), data, kept, own.class_file)
    augment = hole_augment(recipe.heads)
    path = bool(own.path_weight) and not kept
    form = model.gan({**augment.state, **(path_state() if path else {})})
    adam = rated_adam(own.learning_rate, 0.0, 0.99)
    g_adam = rated(optax.multi_transform({"head": adam, "stem": optax.set_to_zero()}, model.trained), own.learning_rate)
    hinge = hinge_of(recipe.heads)
    by_class = own.guidance and kept
    g_loss = guided(still(form), hinge, augment, own, data) if by_class else generator_loss(still(form), hinge, augment)
    if path:
        g_loss = added(g_loss, late_path_loss(still(form), own.path_weight, own.path_kimg))
    side = g.resolution
    return Stage(
        name=f"{side}x{side}",
        data=data,
        train=train,
        init=form.init,
        phases=[Phase("g", g_loss), Phase("d", discriminator_loss(form, hinge, augment))],
        optimizers={"g": g_adam if kept else adam, "d": rated_adam(own.d_learning_rate, 0.0, 0.99)},
        ema={"g": ema_decay(data.batch_size, own.ema_kimg, own.ema_rampup or None)},
        supports=frozenset(("dtype",)),
        sample=model.sample,
        options=recipe.sampling,
        evaluate=modes(data, model.sample, recipe.sampling),
        on_request={"sticking": sticking(model.space(), recipe.sampling)},
        moved=model.moved,
        space=model.space(),
        begin=model.begin if kept else None,
    )


def xl_stages(recipe: XLRecipe, train: TrainConfig) -> list[Stage]:
    """The stem, and a stage for every later side. Raises UserError for options that have no effect beside the others."""
    _check(recipe)
    shape = shape_of(recipe.data, recipe.own.conditional)
    stages = []
    for layers, kept in layers_by_stage(recipe.own, shape.side, shape.channels):
        steps = train.steps if kept else recipe.own.stem_steps
        stages.append(xl_stage(recipe, layers, kept, replace(train, steps=steps)))
    return stages


def _check(recipe: XLRecipe) -> None:
    own, side = recipe.own, shape_of(recipe.data, recipe.own.conditional).side
    if own.guidance and not own.conditional:
        raise UserError(f"guidance={own.guidance}: is by the class, so needs --conditional")
    if own.guidance and own.stem_side >= side:
        raise UserError(f"guidance={own.guidance}: acts after the stem, so needs a stem_side below the images' {side} pixels")
    if own.guidance_classifier and not own.guidance:
        raise UserError(f"guidance_classifier={own.guidance_classifier}: has no effect without --guidance")
    if own.class_file and not own.conditional:
        raise UserError(f"class_file={own.class_file}: has no effect without --conditional")
