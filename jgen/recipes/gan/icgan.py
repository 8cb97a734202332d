"""IC-GAN (Casanova et al. 2021, arXiv:2109.05070): BigGAN's players, conditioned on the features of an instance.

D's real images are drawn from the nearest neighbours of an instance. Both players get the instance's features, and those of a
class-conditional model the neighbour's class. A run is sampled with instances that it keeps in extra["instances"]: "features"
[M, D], and "label" [M, k], the classes of their neighbours.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jgen import samplers
from jgen.config import DataConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, InstanceConfig, InstanceSampling
from jgen.errors import UserError
from jgen.objectives.adversarial import GAN
from jgen.recipes.gan.biggan import Conditions, biggan_stage
from jgen.recipes.gan.biggan_players import Instances
from jgen.recipes.gan.instances import instance_network, neighbourhoods
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, Extra, Key, Params


def with_instances(form: GAN) -> GAN:
    """The form whose state holds the instances that it is sampled with."""

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        params, extra = form.init(key, batch)
        kept = {"features": batch["instance_features"]}
        return params, {**extra, "instances": kept | ({"label": batch["instance_label"]} if form.classes else {})}

    return form._replace(init=init, instances=True)


def kept_instances(classes: int) -> Conditions:
    """An instance for each key, and, for a model of classes, the class of one of its neighbours.

    A chosen class draws the instances in proportion to their neighbours of that class, as the authors' sampling by
    class does; all alike where none has any. Raises UserError for an instance or a class that there is none of.
    """

    def conditions(extra: Extra, keys: Key, options: InstanceSampling) -> Condition:
        kept = jax.tree.map(jnp.asarray, extra["instances"])
        features, labels = kept["features"], kept.get("label")
        count, requested = len(features), samplers.class_labels(keys, options.label, classes)
        if options.instance >= count:
            raise UserError(f"instance={options.instance}: the run keeps {count}; from 0 to {count - 1}, or -1 to draw one")

        def one(key: Key) -> tuple[Array, Array | None]:
            instance_key, label_key = jax.random.split(jax.random.fold_in(key, (1 << 31) + 1))
            instance = jnp.asarray(options.instance)
            if options.instance < 0:
                instance = jax.random.categorical(instance_key, jnp.log(_weights(labels, options.label, count)))
            return features[instance], None if labels is None else jax.random.choice(label_key, labels[instance])

        chosen, label = jax.vmap(one)(keys)
        return Condition(label=label if options.label < 0 else requested, features=chosen)

    return conditions


def _weights(labels: Array | None, label: int, count: int) -> Array:
    """How often each instance is drawn [count], unnormalised; by its neighbours of a chosen class."""
    if labels is None or label < 0:
        return jnp.ones(count)
    shares = jnp.mean(labels == label, -1)
    return jnp.where(jnp.any(shares > 0), shares, 1.0)


def icgan_stage(
    config: BigGANConfig, own: InstanceConfig, data: DataConfig, train: TrainConfig, options: InstanceSampling
) -> Stage:
    """The training of both players on the neighbours of instances."""
    network = instance_network(own.extractor, data)
    sizes = Instances(network.size, own.feature_dim)
    stage = biggan_stage(config, data, train, options, change=with_instances, instances=sizes, conditions=kept_instances)
    inputs = {"instance_features": jax.ShapeDtypeStruct((own.instances, network.size), jnp.float32)}
    if config.conditional:
        inputs["instance_label"] = jax.ShapeDtypeStruct((own.instances, own.neighbours), jnp.int32)
    return replace(
        stage,
        source=partial(neighbourhoods, own, network, data.flip, train.seed),
        example_inputs={"features": np.zeros(network.size, np.float32)},
        init_inputs=inputs,
    )
