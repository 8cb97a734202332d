"""The second stage of latent diffusion: the prior, a diffusion of an autoencoder's latents by a U-Net or a DiT.

Its knobs are those of experiments/latent_diffusion.py.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments import ddpm
from experiments._diffusion import both, mean_loss, optimizer, schedule, unet
from experiments._editing import edit_levels, edits
from experiments._sampling import OF_CHAIN, check

if TYPE_CHECKING:
    from experiments.latent_diffusion import Config, Sampling
    from jgen.experiment import Picture, Stage
    from jgen.models.autoencoder import AutoencoderKL, VQModel


def prior_network(config: "Config") -> Any:
    """(params, x, t, label or caption, train=) -> the noise; and its initialisation."""
    import jax
    import jax.numpy as jnp

    from jgen.errors import UserError
    from jgen.models.dit import DiT
    from jgen.models.text import FeatureEncoder, WordEncoder

    channels = (1 + config.learn_variance) * config.latent_channels
    text, classes = config.condition == "text", config.data.num_classes if config.condition == "class" else 0
    if config.condition == "class" and not classes:
        raise UserError(f"condition=class: {config.data.name} has no labels")
    encoder = (WordEncoder if config.data.captions == "bytes" else FeatureEncoder)(config.text_width)
    if config.prior == "dit":
        net: Any = DiT(channels, config.width, config.depth, 4 if config.width < 512 else 16, config.patch, classes)
    else:
        more: dict[str, Any] = dict(transformer_depth=1, num_heads=4, pool_context=True) if text else {}
        net = unet(
            replace(config, conditional=bool(classes), drop_label=config.drop_label * bool(classes)),
            channels, config.train.dtype, config.train.remat, **more,
        )  # fmt: skip

    def apply(params, x, t, label, **kwargs):
        if text:
            context = encoder.apply({"params": params["text"]}, label)
            return net.apply({"params": params["net"]}, x, t, context=context, **kwargs)
        return net.apply({"params": params["net"]}, x, t, label, **kwargs)

    def init(key, latents, caption):
        keys = jax.random.split(key)
        if not text:
            label = jnp.zeros((1,), jnp.int32) if classes else None
            return {"net": net.init(keys[0], latents, jnp.zeros((1,)), label)["params"]}
        encoded = encoder.init(keys[1], caption)
        context = encoder.apply(encoded, caption)
        made = net.init(keys[0], latents, jnp.zeros((1,)), context=context)["params"]
        return {"net": made, "text": encoded["params"]}

    return apply, init


def captions(config: "Config", prompt: str) -> Any:
    """The prompt, or the captions of 64 held-out images: uint8 [N, L], or float32 [N, L, D] where they are features.

    Raises UserError for one that does not fit.
    """
    import numpy as np

    from jgen.data import open_source
    from jgen.data.captions import minilm
    from jgen.errors import UserError

    source = open_source(replace(config.data, split="test", limit=0), config.train.seed)
    first = source[0]
    if "caption" not in first:
        raise UserError(f"condition=text: {config.data.name} has no captions")
    if not prompt:
        return np.stack([source[i]["caption"] for i in range(64)])
    if config.data.captions == "minilm":
        return minilm()(prompt)[None]
    length, text = len(first["caption"]), prompt.encode("utf-8")
    if len(text) > length:
        raise UserError(f"prompt: {len(text)} bytes long; captions of {config.data.name} have at most {length}")
    return np.frombuffer(text.ljust(length, b"\0"), np.uint8)[None]


class Prior:
    """The diffusion of an autoencoder's latents: its stage of training, and sampling."""

    def __init__(self, config: "Config", net: "AutoencoderKL | VQModel", first: "Stage"):
        self.text, self.conditional = config.condition == "text", config.condition != "none"
        self.config = replace(config, conditional=self.conditional)
        self.net, self.first, self.chain = net, first, schedule(config)
        self.null = 0 if self.text else config.data.num_classes
        self.grid = net.grid(*config.data.shape[:2])
        self.apply, self.fresh = prior_network(config)
        self.examples = captions(config, "") if self.text else None

    def encode(self, params: Any, x: Any, key: Any = None) -> Any:
        """Latents of images, before they are scaled; without a key the means of them."""
        import jax

        from jgen.objectives import first_stage as bottleneck

        found = self.net.apply({"params": params["net"]}, x, method="encode")
        if self.config.first == "vq":
            return found
        if key is None:
            return found[0]
        return bottleneck.latents(*found, jax.random.normal(key, found[0].shape))

    def init(self, key: Any) -> Any:
        import jax
        import jax.numpy as jnp

        params, extra = self.first.init(key)
        latents, caption = jnp.zeros((1, *self.grid)), None if self.examples is None else jnp.asarray(self.examples[:1])
        scale = jnp.asarray(self.config.scale or 1.0, jnp.float32)
        made = self.fresh(jax.random.fold_in(key, 1), latents, caption)
        return {**params, "prior": made}, {**extra, "scale": scale}

    def begin(self, params: Any, extra: Any, fresh: Any, fresh_extra: Any) -> Any:
        """The autoencoder as it was trained, a fresh prior, and the scale of the latents. UserError for other sizes."""
        import jax
        import jax.numpy as jnp

        from jgen.errors import UserError

        if jax.tree.map(jnp.shape, params["net"]) != jax.tree.map(jnp.shape, fresh["net"]):
            raise UserError(
                f"first={self.config.first}, latents of {self.grid}: not the autoencoder that the prior begins from; "
                "give it that one's settings"
            )
        if not self.config.scale:
            fresh_extra = {**fresh_extra, "scale": self.measured_scale(params)}
        return {**fresh, **{k: v for k, v in params.items() if k != "prior"}}, fresh_extra

    def measured_scale(self, params: Any) -> Any:
        """What makes the latents of the first 256 images of unit deviation."""
        import jax
        import jax.numpy as jnp
        import numpy as np

        from jgen.data import open_source
        from jgen.objectives import first_stage as bottleneck

        source = open_source(self.config.data, self.config.train.seed)
        images = np.stack([source[i]["image"] for i in range(min(len(source), 256))]) / np.float32(127.5) - 1
        return bottleneck.scale_factor(self.encode(params, jnp.asarray(images), jax.random.key(0)))

    def objective(self, train: bool) -> Any:
        """The simple loss of scaled latents, or the hybrid one where the variance is learned."""
        import jax

        from jgen.objectives import diffusion, vlb

        config = self.config
        how: dict[str, Any] = dict(conditional=self.conditional, drop_label=config.drop_label, null_label=self.null)
        kind = vlb.hybrid if config.learn_variance else diffusion.simple
        own = kind(self.apply, self.chain, config.prediction, player="prior", train=train, **how)

        def loss(params, extra, key, batch):
            latents = extra["scale"] * self.encode(params, batch["image"], jax.random.fold_in(key, 7))
            told = {"label": batch["caption"]} if self.text else {}
            return own(params, extra, key, {**batch, **told, "image": jax.lax.stop_gradient(latents)})

        return loss

    def asked(self, keys: Any, options: "Sampling") -> Any:
        """The caption or class of every image, None without a condition. Raises UserError for what the model can't be asked."""
        import jax
        import jax.numpy as jnp

        from jgen import samplers
        from jgen.errors import UserError

        check(options, self.config.sampling, OF_CHAIN)
        for name in ("threshold", "classifier", "classifier_scale"):
            if value := getattr(options, name):
                raise UserError(f"{name}={value}: is for pixels, and these are latents")
        if self.text and options.label != -1:
            raise UserError(f"label={options.label}: this model takes captions; say --prompt")
        if self.text:
            told = jnp.asarray(captions(self.config, options.prompt))
            return told[jax.vmap(lambda k: jax.random.randint(jax.random.fold_in(k, 1 << 30), (), 0, len(told)))(keys)]
        if options.prompt:
            raise UserError(f"prompt={options.prompt}: this model has no captions; train one with --condition text")
        if options.guidance != 1 and not self.conditional:
            raise UserError(
                f"guidance={options.guidance}: this model has no condition; train one with --condition class or text"
            )
        return samplers.class_labels(keys, options.label, self.null if self.conditional else 0)

    def sample(self, params: Any, extra: Any, keys: Any, options: "Sampling") -> Any:
        """Images, decoded from latents drawn. Raises UserError for options that can't be."""
        return self.draw(params, extra, keys, self.asked(keys, options), options)

    def draw(self, params: Any, extra: Any, keys: Any, label: Any, options: "Sampling") -> Any:
        """Images of these captions or classes."""
        z = ddpm.draw(self.config, options, self.network(params), label, keys, self.grid, self.null, pixels=False)
        return self.decode(params, extra, z)

    def draw_as_told(self, params: Any, extra: Any, keys: Any, told: Any) -> Any:
        """Images of held-out captions or classes. Raises UserError where the options ask for others."""
        from jgen.errors import UserError

        options = self.config.sampling
        for name, value, default in (("label", options.label, -1), ("prompt", options.prompt, "")):
            if value != default:
                raise UserError(f"{name}={value}: the evaluation asks for what held-out images show; only sample takes one")
        self.asked(keys, options)  # which checks them
        return self.draw(params, extra, keys, told, options)

    def network(self, params: Any) -> ddpm.Raw:
        return lambda x, t, label: self.apply(params["prior"], x, t, label)

    def decode(self, params: Any, extra: Any, z: Any) -> Any:
        """Images of scaled latents."""
        import jax.numpy as jnp

        method = "decode_nearest" if self.config.first == "vq" else "decode"
        return jnp.clip(self.net.apply({"params": params["net"]}, z / extra["scale"], method=method), -1, 1)

    def edits(self) -> dict[str, "Picture"]:
        """Held-out images, edited by way of their latents."""
        options = self.config.sampling

        def told(batch, keys):
            asked = self.asked(keys, options)
            if self.text:
                return asked if options.prompt else batch["caption"]
            return batch["label"] if self.conditional and options.label < 0 else asked

        def denoiser_of(params, extra, label):
            return ddpm.denoising(self.config, options, self.network(params), label, self.null, pixels=False)

        def encode(params, extra, images):
            return extra["scale"] * self.encode(params, images)

        return edits(options, denoiser_of, partial(edit_levels, self.chain), told, encode, self.decode)

    def stage(self) -> "Stage":
        from experiments._agreement import agreement
        from experiments._observer import has_classifier
        from jgen.experiment import Stage
        from jgen.train import Phase
        from jgen.train.rates import ramped

        config, validate = self.config, self.objective(train=False)
        evaluate = mean_loss(validate)
        if self.conditional and has_classifier(config.data.name):
            evaluate = both(evaluate, agreement(config.data, "caption" if self.text else "label", self.draw_as_told))
        return Stage(
            name="diffusion",
            data=config.data,
            train=replace(config.train, steps=config.prior_steps),
            init=self.init,
            phases=[Phase("prior", self.objective(train=True))],
            optimizers={"prior": optimizer(config, config.prior_steps)},
            ema={"prior": ramped(config.ema)},
            sample=self.sample,
            on_request=self.edits(),
            options=config.sampling,
            validate=validate,
            evaluate=evaluate,
            told={} if self.examples is None else {"caption": self.examples[0]},
            begin=self.begin,
        )
