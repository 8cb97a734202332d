"""Runs notebooks and stores them with their outputs:  python -m docs.notebooks [NAME ...]

They run in an empty folder. Progress bars and doubles of pictures are left out, so that a notebook stays small.
`--at https://github.com/OWNER/NAME` is for those who publish a copy: each notebook gets a badge that opens it on Colab, and the
cell that installs jgen takes it from the copy. With `--keep` nothing is run.
"""

import argparse
import base64
import io
import re
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


def published(notebook: Any, name: str, owner_and_name: str) -> Any:
    """The notebook with a badge that opens it on Colab, from the copy on GitHub, which its first cell installs.

    One published before takes the new address over.
    """
    title = notebook.cells[0]
    opened = f"{BADGE}(https://colab.research.google.com/github/{owner_and_name}/blob/main/notebooks/{name}.ipynb)"
    head, *rest = (line for line in title.source.splitlines() if not line.startswith(BADGE))
    title.source = "\n".join([head, "", opened, *rest])
    for cell in notebook.cells:
        if SOURCE in cell.source:
            lines = cell.source.splitlines()
            from_there = f'    {SOURCE}git+https://github.com/{owner_and_name}"'
            cell.source = "\n".join(from_there if line.strip().startswith(SOURCE) else line for line in lines)
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in FOLDER.glob("*.ipynb")))
    parser.add_argument("--at", default="", help="Address of a published copy, https://github.com/OWNER/NAME.")
    parser.add_argument("--keep", action="store_true", help="Do not run, keep the outputs that there are.")
    given = parser.parse_args()
    copy = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", given.at)
    if given.at and not copy:
        parser.error(f"--at {given.at}: must be https://github.com/OWNER/NAME, since Colab opens notebooks from there")
    for name in given.names:
        path = FOLDER / f"{name}.ipynb"
        notebook = nbformat.read(path, as_version=4)
        if not given.keep:
            with tempfile.TemporaryDirectory() as folder:
                NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
        if copy:
            notebook = published(notebook, name, copy[1])
        nbformat.write(clean(notebook), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
