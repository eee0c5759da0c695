"""Progress of a loop, on standard error so that standard output stays clean."""

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")


def progress(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yields the items of `iterable` while a bar shows how many of `total` are done.

    Args:
        iterable: what to walk over; its length is the total unless `total` is given.
        description: a few words before the bar.
        total: number of items, for an iterable without a length.

    Without a terminal it says one line at the end instead of a bar.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not sys.stderr.isatty():
        count = 0
        for item in iterable:
            yield item
            count += 1
        print(f"{description}: {count} done", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        yield from bar.track(iterable, total=total, description=description)
