"""Building an experiment by shape: every stage's state, losses and samples are traced, and nothing is compiled or computed."""

import jax

from jgen.config import check
from jgen.samplers import image_keys
from jgen.train.stage import batch_shapes, state_shapes


def by_shape(module, config, losses=True, samples=True):
    """The stages of an experiment. Raises UserError as a training of the config would before its first step."""
    check(config)
    stages, earlier = module.build(config).stages, None
    for stage in stages:
        state = state_shapes(stage, earlier)
        earlier = state.params, state.extra
        lead = stage.train.scan > 1
        batch = {k: jax.ShapeDtypeStruct(v.shape[lead:], v.dtype) for k, v in batch_shapes(stage).items()}
        for phase in stage.phases if losses else ():
            jax.eval_shape(phase.loss, *earlier, jax.random.key(0), batch)
        if samples and stage.sample is not None:
            jax.eval_shape(lambda p, e, stage=stage: stage.sample(p, e, image_keys(0, 2), stage.options), *earlier)
    return stages
