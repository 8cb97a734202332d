"""The commands of an experiment after their arguments are understood: all that imports jax, so that --help need not."""

from pathlib import Path
from typing import Any

from jgen.app import edit, noise_edit
from jgen.app.evaluation import evaluate
from jgen.app.export import export as export_run
from jgen.app.imports import import_weights
from jgen.app.sampling import picture, sample
from jgen.app.training import began, show_costs, train
from jgen.config import MeshConfig
from jgen.data import census
from jgen.data.survey import survey as facts_of
from jgen.train.distributed import start

__all__ = [
    "began", "census", "edit_pictures", "evaluate", "export_run", "facts_of", "import_weights", "picture", "sample",
    "show_costs", "start", "train",
]  # fmt: skip


def edit_pictures(
    family: str, command: str, folder: Path, groups: dict[str, Any], out: str, mesh: MeshConfig | None = None
) -> None:
    """Inverts, edits, mixes or makes pictures by a run with styles, or of a diffusion model ("noise"); groups of options."""
    getattr({"styles": edit, "noise": noise_edit}[family], command)(folder, **groups, out=out, mesh=mesh)
