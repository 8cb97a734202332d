"""The normalising flows of NVAE's posteriors (Vahdat & Kautz 2020, arXiv:2007.03898, section 3.2 and appendix A).

The authors' code (NVlabs/NVAE) has two steps in a flow, of which the second one sees the image turned by 180 degrees. A step
is inverse autoregressive (Kingma et al. 2016, arXiv:1606.04934) and shifts alone: z -> z - m(z), where m at a variable depends
on those before it. Its Jacobian is triangular with ones on the diagonal, so the log-determinant is 0 and a flow leaves the
density of a draw as it is. m sees neither the image nor the encoder's features, though the code passes the latter on.
"""

from typing import Any

import flax.linen as nn

from jgen.models.nvae_conv import Conv
from jgen.nn.precision import at_least_float32
from jgen.types import Array

EXPANSION = 6
"""Hidden channels of a step for each of the latents'."""


class FlowStep(nn.Module):
    """Latents [B, side, side, latents] -> z - m(z): a masked 3x3 convolution, a depthwise 5x5 and a 1x1 one, with ELUs."""

    mirrored: bool = False

    @nn.compact
    def __call__(self, z: Array, dtype: Any) -> Array:
        """dtype is that of the convolutions."""
        latents, hidden = z.shape[-1], EXPANSION * z.shape[-1]
        own, before = ("causal_mirrored", "strict_mirrored") if self.mirrored else ("causal", "strict")
        h = nn.elu(Conv(hidden, 3, bias=False, mask=before, name="expand_conv")(z.astype(dtype)))
        h = nn.elu(Conv(hidden, 5, depthwise=True, bias=False, mask=own, name="depthwise")(h))
        # The authors' last layer begins with an ELU of its own, after that of the layer before.
        return z - at_least_float32(Conv(latents, mask=own, gain=0.1, name="shift")(nn.elu(h)))


class Flow(nn.Module):
    """Two steps in opposite orders; the log-determinant of both is 0. Latents keep their shape, and are float32 at least."""

    @nn.compact
    def __call__(self, z: Array, dtype: Any) -> Array:
        """dtype is that of the convolutions."""
        return FlowStep(True, name="step_1")(FlowStep(name="step_0")(z, dtype), dtype)
