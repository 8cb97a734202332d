"""Every notebook runs from top to bottom and shows its pictures."""

import pytest

from tests import tiny

NOTEBOOKS = sorted((tiny.ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """One process for all notebooks, so that jax is imported once; (manager, its folder)."""
    client = pytest.importorskip("jupyter_client")
    pytest.importorskip("nbclient")
    folder, manager = tmp_path_factory.mktemp("notebooks"), client.KernelManager(kernel_name="python3")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("JGEN_NOTEBOOK_STEPS", "4")
        environment.setenv("PYTHONPATH", str(tiny.ROOT))
        manager.start_kernel(cwd=str(folder))
    yield manager, folder
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, kernel):
    import nbclient
    import nbformat

    manager, folder = kernel
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, km=manager, timeout=300).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    if "runs.train" in str(notebook.cells):
        assert list(folder.glob(f"runs/{path.stem}/notebook*/**/report.html"))
