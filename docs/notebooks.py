"""Runs notebooks and stores them with their outputs:  python -m docs.notebooks [NAME ...]

They run in an empty folder. Progress bars and doubles of pictures are left out, so that a notebook stays small.
`--at ADDRESS` is for those who publish a copy: it puts a badge that opens Colab into each notebook, and the address of the copy
into the cell that installs it.
"""

import argparse
import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
SOURCE = 'SOURCE = "'


def kept(output: Any) -> bool:
    """Whether an output says something: an empty one is what a progress bar leaves."""
    if output.output_type == "stream":
        return output.name == "stdout"
    return output.output_type == "error" or any(name.startswith("image/") for name in output.data)


def clean(notebook: Any) -> Any:
    """The notebook without bars, timings and doubles; its pictures with at most 256 colours."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if kept(output)]
        for output in cell.outputs:
            data = output.get("data", {})
            data.pop("image/jpeg", None)
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
    return notebook


def smaller(png: str) -> str:
    """A picture in base64 with at most 256 colours."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def published(notebook: Any, name: str, at: str) -> Any:
    """The notebook with a badge for the copy at an address, which its first cell installs."""
    title = notebook.cells[0]
    there = at.removeprefix("https://github.com/")
    opened = f"{BADGE}(https://colab.research.google.com/github/{there}/blob/main/notebooks/{name}.ipynb)"
    lines = [line for line in title.source.splitlines() if not line.startswith(BADGE)]
    title.source = "\n".join([lines[0], "", opened, *lines[1:]])
    for cell in notebook.cells:
        if SOURCE in cell.source:
            cell.source = "\n".join(
                f'    SOURCE = "git+{at}"' if SOURCE in line else line for line in cell.source.splitlines()
            )  # fmt: skip
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.ipynb")))
    parser.add_argument("--at", default="", help="Address of a published copy.")
    parser.add_argument("--keep", action="store_true", help="Do not run, keep the outputs that there are.")
    given = parser.parse_args()
    for name in given.names:
        path = FOLDER / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        if not given.keep:
            with tempfile.TemporaryDirectory() as folder:
                NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
        if given.at:
            notebook = published(notebook, name, given.at)
        nbformat.write(clean(notebook), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
