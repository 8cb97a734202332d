"""Scores: pure functions on features, the networks that make features, and records that carry their own provenance."""

from jgen.bits import BitsPerDim, bits_per_dim
from jgen.metrics.class_score import inception_score
from jgen.metrics.frechet import Moments, frechet_distance
from jgen.metrics.image_quality import ms_ssim, psnr, ssim
from jgen.metrics.kernel import kid
from jgen.metrics.linear_separability import separability
from jgen.metrics.neighbours import manifold
from jgen.metrics.paths import path_distances, path_length
from jgen.metrics.record import Record, compare

__all__ = [
    "BitsPerDim", "Moments", "Record", "bits_per_dim", "compare", "frechet_distance", "inception_score", "kid", "manifold",
    "ms_ssim", "path_distances", "path_length", "psnr", "separability", "ssim",
]  # fmt: skip
