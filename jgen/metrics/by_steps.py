"""A score over the steps of a sampler, a line a sampler, from the files that `evaluate --metrics` wrote."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jgen import figures, pictures
from jgen.errors import UserError
from jgen.metrics.record import Record, compare


def lines(records: Sequence[Record]) -> dict[str, list[tuple[int, float]]]:
    """name of a sampler -> [(steps, value)] by steps, of records of one metric, of the same run.

    Names hold the settings, besides steps, in which the samplings differ; one that a record does not tell is no difference,
    since records of older versions lack newer settings. Raises UserError for fewer than two records, for one that tells no
    steps, for two of the same sampling, and where runs, seeds or protocols differ.
    """
    if len(records) < 2:
        raise UserError(f"{len(records)} scores: a curve needs two or more, of one metric")
    for record in records:
        if "steps" not in record.subject.get("sampling", {}):
            raise UserError(f"{record.metric} of {record.subject}: tells no steps, so it is not of a sampler that has them")
        compare([records[0]], [record])
        for fact in ("run", "step", "seed"):
            a, b = (r.subject.get(fact) for r in (records[0], record))
            if a != b and not (fact == "run" and _same_folder(a, b)):
                raise UserError(f"{record.metric}: {fact} {a} against {b}; a curve is of one run and seed")
    settings: list[dict[str, Any]] = [dict(r.subject["sampling"]) for r in records]
    names = [k for s in settings for k in s if k not in ("sampler", "steps")]
    differ = [k for k in dict.fromkeys(names) if len({repr(s[k]) for s in settings if k in s}) > 1]
    found: dict[str, list[tuple[int, float]]] = {}
    for record, setting in zip(records, settings):
        name = ", ".join([str(setting.get("sampler", "sampler")), *(f"{k} {setting[k]}" for k in differ if k in setting)])
        if setting["steps"] in dict(found.get(name, [])):
            raise UserError(f"{name}, {setting['steps']} steps: two scores of the same sampling")
        found.setdefault(name, []).append((setting["steps"], record.value))
    return {name: sorted(points) for name, points in found.items()}


def _same_folder(a: Any, b: Any) -> bool:
    """Whether two names of a run, one relative and one absolute, say, lead to one folder from here."""
    return None not in (a, b) and Path(a).resolve() == Path(b).resolve()


def plot(records: Sequence[Record], path: Path) -> None:
    """Writes a PNG of the metric over steps, on a logarithmic axis. Raises UserError as `lines` does."""
    curves = lines(records)
    figure = figures.new(5, 4.5)
    axes = figure.add_subplot()
    for name, points in curves.items():
        axes.plot(*zip(*points), marker="o", label=name)
    ticks = sorted({steps for points in curves.values() for steps, _ in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(t) for t in ticks], minor=False)
    axes.set_xticks([], minor=True)
    figures.label(axes, "steps", records[0].metric)
    figure.legend(loc="outside lower center", ncols=2)
    pictures.save(figures.render(figure), path)
