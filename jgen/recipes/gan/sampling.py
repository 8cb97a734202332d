"""The state in which G samples, and the sampler of a GAN without styles.

Three things make that state, and a run has one answer to each:

- Weights: the moving average of G's weights that `Stage.ema` keeps under "g". A sampler gets it in `params`, as evaluations
  and later stages do; a stage without an average gives the weights of the last step.
- State of networks: what extra holds after the last step, not averaged. Batch statistics are the running ones, which move in
  G's updates alone; a call with train=False reads them and changes nothing.
- Centre of truncation: extra["w_avg"], the moving average of w over both players' updates. `StyleModel.sample` pulls styles
  towards it by psi.
"""

from jgen import samplers
from jgen.config import LabelSampling
from jgen.objectives.adversarial import GAN
from jgen.types import Array, Condition, Extra, Key, Params, Sample


def sampler(form: GAN) -> Sample:
    """The images that G generates with train=False, one key an image, of the class that the options name."""

    def sample(params: Params, extra: Extra, keys: Key, options: LabelSampling) -> Array:
        condition = Condition(label=samplers.class_labels(keys, options.label, form.classes))
        return form.generate(params, extra, form.latents(keys, condition), condition, train=False)[0]

    return sample
