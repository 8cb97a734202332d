"""Linear separability: how well a hyperplane in latent space tells an attribute (Karras et al. 2019, section 4.2)."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.svm import LinearSVC

from jgen.errors import UserError


class Separability(NamedTuple):
    scores: dict[str, float]
    """exp2 of the summed conditional entropies, of each latent space; 1 is perfect."""
    entropies: dict[str, np.ndarray]
    """H(attribute | side of the hyperplane) in bits [attributes], of each space."""


def separability(latents: Mapping[str, np.ndarray], attribute_logits: np.ndarray, keep: int, **svm: Any) -> Separability:
    """StyleGAN's procedure: for each attribute the `keep` surest samples, a linear SVM on them, H(target | side).

    latents: space name -> [N, D]; attribute_logits [N, attributes]: a positive one is class 0. svm: options of
    scikit-learn's LinearSVC. Raises UserError where there are fewer than `keep` samples.
    """
    count = len(attribute_logits)
    if not 1 <= keep <= count or any(len(x) != count for x in latents.values()):
        sizes = {k: len(v) for k, v in latents.items()}
        raise UserError(f"keep={keep}: must be from 1 to {count}, the number of logits; latents are {sizes}")
    entropies = {space: np.zeros(attribute_logits.shape[1]) for space in latents}
    for i, logits in enumerate(np.asarray(attribute_logits, np.float64).T):
        chosen, target = surest(logits, keep)
        for space, points in latents.items():
            table = joint(sides(np.asarray(points)[chosen], target, **svm), target)
            entropies[space][i] = conditional_entropy(table)
    return Separability({space: float(2 ** h.sum()) for space, h in entropies.items()}, entropies)


def surest(logits: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the `keep` surest samples in that order, their classes) for the logits [N] of one attribute."""
    probability = 1 / (1 + np.exp(-2 * np.stack([logits, -logits], 1)))
    order = np.argsort(-probability.max(1), kind="stable")[:keep]
    return order, probability.argmax(1)[order]


def sides(points: np.ndarray, target: np.ndarray, **svm: Any) -> np.ndarray:
    """On which side of the best hyperplane each point [N, D] lies; the target itself where it has one class only."""
    return target if len(np.unique(target)) < 2 else np.asarray(hyperplane(points, target, **svm).predict(points))


def hyperplane(points: np.ndarray, target: np.ndarray, **svm: Any) -> LinearSVC:
    """The linear SVM that tells the classes [N], of which there must be two, of points [N, D]; svm: options of LinearSVC."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # liblinear's limit of iterations is part of the procedure
        return LinearSVC(**svm).fit(points, target)


def joint(side: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The joint frequencies [2, 2] of side (rows) and target (columns)."""
    return np.histogram2d(side, target, bins=(2, 2), range=((-0.5, 1.5), (-0.5, 1.5)))[0] / len(target)


def entropy(p: np.ndarray) -> float:
    """In bits, of a table of frequencies of any sum."""
    p = np.asarray(p, np.float64) / np.sum(p)
    p = p[p > 0]
    return float(max(-(p * np.log2(p)).sum(), 0))


def conditional_entropy(table: np.ndarray) -> float:
    """H(column | row) in bits of a joint table."""
    return max(entropy(table) - entropy(np.sum(table, 1)), 0.0)


def mutual_information(table: np.ndarray) -> float:
    """In bits, of a joint table."""
    return max(entropy(np.sum(table, 0)) - conditional_entropy(table), 0.0)
