"""The bar that shows how far something is."""

import contextlib
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import jax
import rich.progress
from rich.console import Console

from jgen.steps import listening


def progress_bar(console: Console, shown: bool, *more: rich.progress.ProgressColumn) -> rich.progress.Progress:
    """A bar with counts, time and time left and what `more` shows; drawn on a terminal or in a notebook only."""
    columns = (rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn())
    ends = (rich.progress.TimeElapsedColumn(), rich.progress.TimeRemainingColumn())
    seen = console.is_terminal or console.is_jupyter
    return rich.progress.Progress(*columns, *more, *ends, console=console, disable=not (shown and seen))


def tracked(batches: Iterable[Any], num: int, title: str, size: int = 0) -> Iterator[Any]:
    """The batches, each waited for, with a bar of `num` images that runs from a thread of its own; size: images a batch.

    Within a batch it moves with the steps of a sampler that tells them (`jgen.steps`).
    """
    with progress_bar(Console(stderr=True), jax.process_index() == 0) as bar:
        task, done = bar.add_task(title, total=num), 0

        def moved(share: float) -> None:
            bar.update(task, completed=min(num, done + int(share * size)))

        with listening(moved):
            for batch in batches:
                yield jax.block_until_ready(batch)
                done += len(batch)
                bar.update(task, completed=min(num, done))


def counted(batches: Iterator[Any], num: int, title: str, size: int) -> Generator[Any]:
    """The batches, whatever they hold, with a bar of `num` images, `size` for each; close it where not all are taken."""
    with progress_bar(Console(stderr=True), jax.process_index() == 0) as bar:
        task = bar.add_task(title, total=num)
        for batch in batches:
            yield batch
            bar.advance(task, size)


@contextlib.contextmanager
def waiting(title: str) -> Iterator[None]:
    """A sign that something goes on which has no steps to count, with its title; drawn on a terminal or in a notebook only."""
    with Console(stderr=True).status(title) if seen() else contextlib.nullcontext():
        yield


def seen() -> bool:
    """Whether a bar would be drawn: on a terminal or in a notebook, by the first process."""
    console = Console(stderr=True)
    return jax.process_index() == 0 and (console.is_terminal or console.is_jupyter)
