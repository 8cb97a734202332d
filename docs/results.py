"""Fills the tables of README.md and docs/ from docs/results.json:  python -m docs.results

A page says where a table stands, and this module writes what is between the two lines:

    <!-- results: ddpm edm -->     the records of some experiments, a row a preset
    <!-- costs -->                 all records, with steps and batch
    <!-- table: gans -->           one of the tables of results.json
    <!-- samplers -->              the samplers that --sampler takes, by the table of jgen.config.samplers
    <!-- tricks -->                the pairs of docs/tricks.py, which measures them
    <!-- small_data -->            the methods of docs/small_data.py, which measures them
    <!-- families -->              the families, and what was measured of each
    <!-- grids -->                 grids of 256 samples, where docs/grids has them
    <!-- end -->

results.json holds `records`, `tables` and `families`; its `about` says what the fields mean. A null was not measured.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docs import small_data, tricks
from jgen.config.samplers import SAMPLERS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = re.compile(
    r"(<!-- (results|costs|table|samplers|tricks|small_data|families|grids):? ?([^>]*?) ?-->\n).*?(<!-- end -->)", re.S
)
UNMEASURED = "not measured"

Record = Mapping[str, Any]


def read() -> dict[str, Any]:
    """The records, tables, families, and what docs.tricks and docs.small_data measured."""
    return {**json.loads((HERE / "results.json").read_text()), "tricks": tricks.read(), "small_data": small_data.read()}


def size(record: Record) -> str:
    """Steps of the stages and images of a step.

    >>> size({"steps": [300, 3000], "batch": 32})
    '300 + 3,000 x 32'
    """
    return f"{' + '.join(f'{steps:,}' for steps in record['steps'])} x {record['batch']}"


def command(record: Record) -> str:
    """The command that trains a preset; the first preset is the default."""
    preset = "" if record["preset"] == record.get("default", "digits") else f" --preset {record['preset']}"
    return f"python -m experiments.{record['experiment']}{preset}"


def found(record: Record) -> str:
    """The scores of a record and its note."""
    return "; ".join(part for part in (record["found"] or UNMEASURED, record["note"]) if part)


def how(record: Record) -> str:
    """The command that gave the scores, and the processor."""
    done = record["command"] and f"`{record['command']}`"
    return ", ".join(part for part in (done, record["processor"]) if part)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (columns, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]]) + "\n"


def costs(records: Sequence[Record]) -> str:
    """All presets for CPUs, an experiment's name in the first row of its own."""
    rows, before = [], ""
    for record in records:
        name = record["experiment"]
        first = "" if name == before else f"`{name}`"
        rows.append((first, f"`{record['preset']}`", size(record), record["cost"] or UNMEASURED, found(record)))
        before = name
    return table(("experiment", "preset", "steps x images", "on 2 CPU cores", "found"), rows)


def results(records: Sequence[Record], names: Sequence[str]) -> str:
    """The presets of some experiments: command, time, scores, and how those were measured."""
    chosen = [record for name in names for record in records if record["experiment"] == name]
    rows = [(f"`{command(each)}`", each["cost"] or UNMEASURED, found(each), how(each)) for each in chosen]
    return table(("command", "on 2 CPU cores", "found", "measured by"), rows)


def families(all_families: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> str:
    """A row a family: its papers, one command, its page and notebook, and which experiments were measured here."""
    rows = []
    for family in all_families:
        own = [record for record in records if record["experiment"] in family["experiments"]]
        done = {f"`{record['experiment']}`": None for record in own if record["cost"] or record["found"]}
        rest = {f"`{record['experiment']}`": None for record in own if f"`{record['experiment']}`" not in done}
        notebook = f"[{family['notebook']}](notebooks/{family['notebook']}.ipynb)" if family["notebook"] else ""
        name = f"[{family['name']}](docs/families/{family['page']}.md)"
        rows.append((name, family["papers"], f"`{family['command']}`", notebook, ", ".join(done), ", ".join(rest)))
    return table(("family", "papers", "one command", "notebook", "measured here", "not measured"), rows)


def grids(records: Sequence[Record]) -> str:
    """256 samples of each preset for Fashion-MNIST whose grid is kept, below its command and scores."""
    parts = []
    for record in records:
        path = f"grids/{record['experiment']}.webp"
        if record["preset"] == "fashion_mnist" and (HERE / path).is_file():
            parts.append(f"`{command(record)}`: {found(record)}.\n\n![256 samples of {record['experiment']}]({path})\n")
    return "\n".join(parts)


MODELS = {"discrete": "all", "continuous": "all", "sde": "`score_sde`", "levels": "`ncsn`"}
"""Which diffusion and score models a sampler of some coordinates runs."""


def samplers() -> str:
    """A row a sampler: its name, what it is, and which models it runs."""
    rows = []
    for name, kind in SAMPLERS.items():
        about = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        rows.append((f"`{name}`", about, MODELS[kind.coordinates]))
    return table(("`--sampler`", "what it is", "models"), rows)


def fill(page: str, data: Mapping[str, Any]) -> str:
    """A page with its tables made of the data. Raises KeyError for a table that does not exist."""
    records = data["records"]

    def body(match: re.Match[str]) -> str:
        kind, names = match[2], match[3].split()
        if kind == "costs":
            made = costs(records)
        elif kind == "results":
            made = results(records, names)
        elif kind == "families":
            made = families(data["families"], records)
        elif kind == "grids":
            made = grids(records)
        elif kind == "samplers":
            made = samplers()
        elif kind == "tricks":
            made = table(tricks.COLUMNS, tricks.rows(data["tricks"]))
        elif kind == "small_data":
            made = table(small_data.COLUMNS, small_data.rows(data["small_data"]))
        else:
            one = data["tables"][names[0]]
            made = table(one["columns"], [[UNMEASURED if cell is None else cell for cell in row] for row in one["rows"]])
        return f"{match[1]}\n{made}\n{match[4]}"

    return PLACE.sub(body, page)


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [ROOT / "README.md", *sorted(HERE.rglob("*.md"))]


if __name__ == "__main__":
    content = read()
    for path in pages():
        path.write_text(fill(path.read_text(), content))
