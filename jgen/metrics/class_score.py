"""Scores of a classifier's view of samples: the Inception Score, and how many classes there are, and how evenly they come."""

import itertools

import numpy as np

from jgen.errors import UserError
from jgen.metrics.rows import check_rows


def inception_score(logits: np.ndarray, splits: int = 10, ddof: int = 0) -> tuple[float, float]:
    """(mean, standard deviation) over splits of exp(mean KL(p(y|x) || p(y))) for logits [N, classes].

    Split i holds rows i N / splits up to (i + 1) N / splits, in order (Salimans et al. 2016, arXiv:1606.03498; the
    authors' and StyleGAN's code have ddof=0, StudioGAN 1). float64. Raises UserError for fewer rows than splits, and for
    rows that are not finite.
    """
    check_rows("inception_score", logits=logits)
    if splits < 1 or len(logits) < splits:
        raise UserError(f"inception_score: {len(logits)} rows in {splits} splits; needs at least a row a split")
    z = np.asarray(logits, np.float64)
    z = z - z.max(1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    edges = [i * len(z) // splits for i in range(splits + 1)]
    scores = []
    for begin, end in itertools.pairwise(edges):
        part = log_p[begin:end]
        p = np.exp(part)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(p > 0, p * (part - np.log(p.mean(0, keepdims=True))), 0)
        scores.append(np.exp(gain.sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores, ddof=ddof)) if splits > ddof else 0.0


def modes_found(logits: np.ndarray) -> tuple[float, float]:
    """(classes that are the likeliest of at least one row, KL divergence of their shares from equal ones in nats) of [N, K].

    On Stacked MNIST K is 1,000 and N about 26,000 (Metz et al. 2017, arXiv:1611.02163; Srivastava et al. 2017). Raises
    UserError for no rows, and for rows that are not finite.
    """
    check_rows("modes", logits=logits)
    if not len(logits):
        raise UserError("modes: no rows; needs at least one")
    classes = logits.shape[1]
    shares = np.bincount(np.argmax(logits, 1), minlength=classes) / len(logits)
    present = shares[shares > 0]
    return float(len(present)), float(np.sum(present * np.log(present * classes)))
