"""Official checkpoints -> jgen variables. No converter here runs code from the file it reads.

weights = load_weights("64x64_diffusion.pt")
net, variables = adm.unet(weights, **config)
"""

from jgen.convert import (
    adm,
    biggan,
    biggan_hub,
    biggan_tf,
    clip,
    diffusers,
    dit,
    edm,
    feature_nets,
    glow,
    latent_diffusion,
    minilm,
    ncsn,
    nvae,
    pixelcnn,
    projected_gan,
    psp,
    r3gan,
    score_sde,
    stylegan1,
    stylegan2,
    stylegan2_pytorch,
    stylegan3,
    stylegan_xl,
    tarflow,
    vdvae,
    vqvae,
)
from jgen.convert.common import part
from jgen.convert.files import load_weights

__all__ = [
    "adm", "biggan", "biggan_hub", "biggan_tf", "clip", "diffusers", "dit", "edm", "feature_nets", "glow", "latent_diffusion",
    "load_weights", "minilm", "ncsn", "nvae", "part", "pixelcnn", "projected_gan", "psp", "r3gan", "score_sde", "stylegan1",
    "stylegan2", "stylegan2_pytorch", "stylegan3", "stylegan_xl", "tarflow", "vdvae", "vqvae",
]  # fmt: skip
