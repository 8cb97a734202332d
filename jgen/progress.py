"""The bar that shows how far something is."""

import rich.progress
from rich.console import Console


def progress_bar(console: Console, shown: bool, *more: rich.progress.ProgressColumn) -> rich.progress.Progress:
    """A bar with counts, time left and what `more` shows; drawn on a terminal only."""
    columns = (rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(), rich.progress.MofNCompleteColumn())
    end = rich.progress.TimeRemainingColumn()
    return rich.progress.Progress(*columns, *more, end, console=console, disable=not (shown and console.is_terminal))
