"""Design of the low-pass filters of alias-free networks: separable Kaiser windows, and radially symmetric jinc filters.

Karras et al. 2021 (arXiv:2106.12423), section 3.1 and appendix C.1. Frequencies and sampling rates share a unit, such as cycles
per image.
"""

import numpy as np
from scipy import signal, special

from jgen.errors import UserError


def lowpass_filter(taps: int, cutoff: float, width: float, rate: float, radial: bool = False) -> np.ndarray | None:
    """The filter [taps], or with `radial` [taps, taps], of a cutoff and a transition band of `width`, at a sampling `rate`.

    Its values add up to 1. A single tap is no filter: None. Raises UserError for no taps, and for a cutoff or a width that the
    rate does not hold.
    """
    if taps < 1 or not 0 < cutoff < rate / 2 or width <= 0:
        raise UserError(f"taps={taps}, cutoff={cutoff}, width={width}: must be at least 1, within 0..{rate / 2}, and above 0")
    if taps == 1:
        return None
    if not radial:
        return np.asarray(signal.firwin(taps, cutoff, width=width, fs=rate))
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.hypot(x[:, None], x[None])
    # At the centre, which an odd number of taps has, the jinc's limit.
    safe = np.where(r == 0, 1.0, r)
    jinc = np.where(r == 0, cutoff, special.j1(2 * np.pi * cutoff * safe) / (np.pi * safe))
    window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2))))
    f = jinc * np.outer(window, window)
    return f / f.sum()
