"""Progress of a loop or a transfer, on standard error so that standard output stays clean."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")

REPORT = "PIPELINE_PROGRESS"  # in the environment: the file from which `pipeline repro` learns how far a stage is
REPORT_SECONDS = 0.25  # between two reports


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
        report = _reporter(total)
        for item in iterable:
            yield item
            count += 1
            report(count, description)
        print(f"{description}: {count} done", file=sys.stderr)
        return
    with _bar() as bar:
        yield from bar.track(iterable, total=total, description=description)


@contextmanager
def told_progress(total: int, done: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yields a function to call with how many are done and how it goes, which stands before the bar.

    Args:
        total: number at the end.
        done: number that was there before.

    Without a terminal it says one line at the end instead of a bar: how it went.
    """
    if not sys.stderr.isatty():
        report, last = _reporter(total), ""

        def tell(done: int, words: str) -> None:
            nonlocal last
            last = words
            report(done, words)

        try:
            yield tell
        finally:
            if last:
                print(last, file=sys.stderr)
        return
    with _bar() as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda done, words: bar.update(task, completed=done, description=words)


@contextmanager
def byte_progress(description: str, total: int | None, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes just received, shown as a bar with speed and time left.

    Args:
        description: what is received.
        total: bytes at the end, or None if unknown.
        start: bytes that were there before.

    Without a terminal it says one line at the end instead of a bar.
    """
    if not sys.stderr.isatty():
        received = start
        report = _reporter(total)

        def count(num_bytes: int) -> None:
            nonlocal received
            received += num_bytes
            report(received, description)

        try:
            yield count
        finally:
            of = f" of {total / 1e6:.1f}" if total is not None else ""
            print(f"{description}: {received / 1e6:.1f}{of} MB", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=start)
        yield lambda num_bytes: bar.advance(task, num_bytes)


def _bar() -> Progress:
    """A bar that counts items."""
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
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))


def _reporter(total: int | None) -> Callable[[int, str], None]:
    """A function to call with how many are done of what, which tells it to whoever asked for reports, now and then."""
    path = os.environ.get(REPORT)
    if not path:
        return lambda done, description: None
    last = 0.0

    def report(done: int, description: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= REPORT_SECONDS or done == total:
            last = now
            with suppress(OSError):  # a full disk is the stage's to tell
                Path(path).write_text(json.dumps([description, done, total]), encoding="utf-8")

    return report
