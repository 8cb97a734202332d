"""Official checkpoints in, jgen variables out.

    weights = jgen.convert.load_weights("64x64_diffusion.pt")
    net, variables = jgen.convert.adm.unet(weights, **official_config)

Files are read without running code from them; a converter fails with the names that are missing or left over.
"""

from jgen.convert import adm, diffusers, dit, edm, feature_nets, latent_diffusion, minilm, ncsn, score_sde, stylegan1, stylegan2
from jgen.convert.common import part
from jgen.convert.files import load_weights

__all__ = [
    "adm", "diffusers", "dit", "edm", "feature_nets", "latent_diffusion", "load_weights", "minilm", "ncsn", "part", "score_sde",
    "stylegan1", "stylegan2",
]  # fmt: skip
