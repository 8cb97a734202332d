"""Rows of features, checked before a score is made of them: what is not finite would come out as a number like any other."""

import numpy as np

from jgen.errors import UserError


def check_rows(score: str, **sets: np.ndarray) -> None:
    """Raises UserError unless sets of features or logits, by what they are, are finite [N, D] of the same D."""
    widths = set()
    for name, rows in sets.items():
        if np.ndim(rows) != 2:
            raise UserError(f"{score}: {name} of shape {list(np.shape(rows))}; must be [N, D]")
        if not np.isfinite(rows).all():
            raise UserError(f"{score}: {name} hold NaN or infinity; are the images finite?")
        widths.add(np.shape(rows)[1])
    if len(widths) > 1:
        raise UserError(f"{score}: rows of {' and '.join(map(str, sorted(widths)))} numbers; must be of as many in both sets")
