"""Every notebook runs from top to bottom and shows its pictures."""

import os

import pytest

from tests import tiny

NOTEBOOKS = sorted((tiny.ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("JGEN_NOTEBOOK_STEPS", "4")
    monkeypatch.setenv("JGEN_NOTEBOOK_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(tiny.ROOT))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    if "runs.train" in str(notebook.cells):
        assert os.path.exists(tmp_path / "run" / "samples.png")
