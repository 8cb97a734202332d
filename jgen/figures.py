"""Matplotlib's figures as pictures, without a window and without its global state."""

import io
from typing import Any

from matplotlib.figure import Figure
from PIL import Image


def new(width: float, height: float) -> Figure:
    """An empty `matplotlib.figure.Figure` of a size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def label(axes: Any, x: str, y: str) -> None:
    """Names both axes of a `matplotlib.axes.Axes` and draws a faint grid."""
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)


def render(figure: Any) -> Image.Image:
    """The figure as a picture of 100 pixels an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return Image.open(buffer)
