"""The report of a run: one self-contained page of pictures, curves, config and commands."""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jgen.errors import UserError
from jgen.files import replacing
from jgen.metrics import record
from jgen.pictures import curves
from jgen.train.log import read


def report(folder: Path, title: str, config: dict[str, Any], facts: dict[str, str], commands: list[str]) -> Path:
    """Writes report.html: pictures over time, curves, timings, config, commands. Nothing is loaded from elsewhere."""
    images = [p for p in sorted((folder / "samples").glob("*.png")) if "-" not in p.name]
    images += [*folder.glob("samples.png")]
    shown = [images[round(i)] for i in np.linspace(0, len(images) - 1, min(len(images), 9))] if images else []
    shown += [p for p in sorted(folder.glob("*.png")) if p.name not in ("samples.png", "loss.png")]
    records = read(folder / "metrics.jsonl")
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    figures = "".join(f"<figure>{_image(p)}<figcaption>{html.escape(p.stem)}</figcaption></figure>" for p in shown)
    curve = _image(curves(records)) if records else "<p>No records.</p>"
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}}
figure{{display:inline-block;margin:.5rem}}figure img{{width:16rem;image-rendering:pixelated}}
th{{text-align:left;padding-right:1rem}}pre{{background:#f4f4f4;padding:1rem;overflow:auto}}</style>
<h1>{html.escape(title)}</h1><table>{rows}</table>
{SCORES[0]}{_scores(folder)}{SCORES[1]}
<h2>Samples over time</h2>{figures or "<p>None yet.</p>"}
<h2>Curves</h2>{curve}
<h2>Commands</h2><pre>{html.escape(chr(10).join(commands))}</pre>
<h2>Config</h2><pre>{html.escape(json.dumps(config, indent=2))}</pre></html>"""
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page)
    return path


SCORES = ("<!-- scores -->", "<!-- end of scores -->")
"""Marks around the table of scores, which is rewritten after each evaluation."""


def show_scores(folder: Path) -> None:
    """Puts the scores that a run's folder holds into its report, where it has one; each says what it was compared with."""
    path = folder / "report.html"
    page = path.read_text() if path.is_file() and not path.is_symlink() else ""
    before, start, rest = page.partition(SCORES[0])
    _, end, after = rest.partition(SCORES[1])
    if end:
        with replacing(path) as temporary:
            temporary.write_text(f"{before}{start}{_scores(folder)}{end}{after}")


def _scores(folder: Path) -> str:
    rows = []
    for path in sorted([*folder.glob("scores-*.json"), *folder.glob("evaluate-*.json")], key=lambda p: p.stat().st_mtime):
        try:
            found = record.read(path)
        except UserError:
            continue  # another file of that name
        rows += [(each.metric, f"{each.value:.5f}", record.basis(each), f"{each.subject.get('step', '')}") for each in found]
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    heads = "<tr><th>measure</th><th>value</th><th>measured on</th><th>step</th></tr>"
    return f"<h2>Scores</h2><table>{heads}{cells}</table>" if rows else ""


def _image(source: Path | Image.Image) -> str:
    if isinstance(source, Path):
        data = source.read_bytes()
    else:
        buffer = io.BytesIO()
        source.save(buffer, "png")
        data = buffer.getvalue()
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
