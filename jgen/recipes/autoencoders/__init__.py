"""Autoencoders: VAEs and their relatives, VQ-VAEs with priors over their codes, and the first stage of latent diffusion."""
