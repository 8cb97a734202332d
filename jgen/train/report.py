"""The report of a run: one self-contained page of pictures, curves, scores, settings and commands, for any screen."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jgen.data.images import FORMATS, UNREADABLE
from jgen.errors import UserError
from jgen.files import replacing
from jgen.metrics import record
from jgen.pictures import curves
from jgen.train.figure import figure
from jgen.train.log import read
from jgen.train.over_training import NAME
from jgen.train.page import page

LAPSE = 8
"""Sample grids over time, at most."""
SCORES = ("<!-- scores -->", "<!-- end of scores -->")
"""Marks around the table of scores, which is rewritten after each evaluation."""
READS = {
    "fid": "distance of the features of two sets: lower is better, 0 for equal ones",
    "fd": "distance of the features of two sets: lower is better, 0 for equal ones",
    "kid": "distance of the features of two sets, without bias: lower is better",
    "is": "how clear and how varied the classes are: higher is better",
    "precision": "share of the samples that are near real images: higher is better",
    "recall": "share of the real images that are near samples: higher is better",
    "density": "how many real images are near each sample: higher is better",
    "coverage": "share of the real images with a sample near: higher is better",
    "authenticity": "share of the samples that are no near copies of real images; new real images come to about half",
    "bits": "bits for each number of an image: lower is better",
    "loss": "the objective on images that were not trained on: lower is better",
}
"""How a score reads, by what its name begins with."""


class Part(NamedTuple):
    """One stage of a run, as its report shows it."""

    name: str
    folder: Path
    facts: Mapping[str, str]
    captions: Mapping[str, str] = {}
    """Sentences by the names of the pictures."""


def report(
    folder: Path, title: str, about: str, config: Mapping[str, Any], parts: Sequence[Part], commands: Sequence[str]
) -> Path:
    """Writes report.html in a run's folder: scores, then for every stage its pictures and curves, then commands and settings.

    about: the model in a sentence. Nothing is loaded from elsewhere.
    """
    shown = "".join(_part(part, len(parts) > 1) for part in parts)
    body = f"""<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>
{SCORES[0]}{_scores(folder)}{SCORES[1]}
{shown}
<h2>Commands</h2><pre tabindex="0">{html.escape(chr(10).join(commands))}</pre>
<h2>Settings</h2><details><summary>All settings of the run</summary>
<pre tabindex="0">{html.escape(json.dumps(config, indent=2))}</pre></details>"""
    path = folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(page(title, body), encoding="utf-8")
    return path


def show_scores(folder: Path) -> None:
    """Puts the scores that a run's folder holds into its report, where it has one; each says what it was compared with."""
    path = folder / "report.html"
    text = path.read_text(encoding="utf-8") if path.is_file() and not path.is_symlink() else ""
    before, start, rest = text.partition(SCORES[0])
    _, end, after = rest.partition(SCORES[1])
    if end:
        with replacing(path) as temporary:
            temporary.write_text(f"{before}{start}{_scores(folder)}{end}{after}", encoding="utf-8")


def _part(part: Part, several: bool) -> str:
    """A stage: facts, its last pictures, samples over time, curves."""
    rows = "".join(f"<tr><th scope=row>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in part.facts.items())
    last = [part.folder / "samples.png"] if (part.folder / "samples.png").is_file() else []
    last += [path for path in sorted(part.folder.glob("*.png")) if path.stem not in ("samples", "loss", NAME)]
    last = [path for path in last if _readable(path)]  # a file of the user's ends no training
    lapse = [path for path in sorted((part.folder / "samples").glob("*.png")) if "-" not in path.name]
    lapse = [lapse[round(i)] for i in np.linspace(0, len(lapse) - 1, min(len(lapse), LAPSE))] if len(lapse) > 1 else []
    records = read(part.folder / "metrics.jsonl")
    head = f"<h2>Stage {html.escape(part.name)}</h2>" if several else ""
    level = "h3" if several else "h2"
    found = [f"{head}<div class=wide><table>{rows}</table></div>"]
    pictures = "".join(figure(path, _caption(path, part)) for path in last)
    found.append(f"<{level}>Pictures</{level}><div class=figures>{pictures or '<p>None yet.</p>'}</div>")
    if lapse:
        steps = "".join(figure(path, f"Step {int(path.stem):,}" if path.stem.isdecimal() else path.stem) for path in lapse)
        same = "<p>The images of one seed while it trains: each place shows one image as it changes.</p>"
        strip = "".join(figure(path, NAME.replace("_", " ")) for path in [part.folder / f"{NAME}.png"] if _readable(path))
        found.append(f"<{level}>Samples over time</{level}>{strip}{same}<div class='figures small'>{steps}</div>")
    if records:
        text = "Every record is faint, their trailing mean is bold."
        found.append(f"<{level}>Curves</{level}>{figure(curves(records), text, plot=True)}")
    return "".join(found)


def _readable(path: Path) -> bool:
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
    except UNREADABLE:
        return False
    return True


def _caption(path: Path, part: Part) -> str:
    return part.captions.get(path.stem, path.stem.replace("_", " "))


def _scores(folder: Path) -> str:
    rows = []
    for path in sorted([*folder.glob("scores-*.json"), *folder.glob("evaluate-*.json")], key=lambda p: p.stat().st_mtime):
        try:
            found = record.read(path)
        except UserError:
            continue  # another file of that name
        for each in found:
            reads = next((text for name, text in READS.items() if each.metric.split("_")[0] == name), "")
            step = f"{each.subject.get('step', '')}"
            rows.append((each.metric, f"{each.value:.5f}", record.basis(each), step, reads))
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    names = ("measure", "value", "measured on", "step", "how it reads")
    heads = "<tr>" + "".join(f"<th scope=col>{name}</th>" for name in names) + "</tr>"
    return f"<h2>Scores</h2><div class=wide tabindex=0><table class=scores>{heads}{cells}</table></div>" if rows else ""
