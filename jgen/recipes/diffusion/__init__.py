"""Diffusion models: of a discrete chain, in continuous coordinates, of latents, and in cascades."""
