"""A function over many items on all cores, with the results in the order of the items."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(function: Callable[[Item], Result], items: Sequence[Item], chunk: int = 16) -> Iterator[Result]:
    """`function` of each item, in order; the work is spread over processes where there are several cores.

    Args:
        function: a module's function or a `functools.partial` of one; its result must depend on the item alone.
        items: few enough to be listed.
        chunk: items handed to a process at a time; no more than that run in this process alone.
    """
    workers = min(len(os.sched_getaffinity(0)), (len(items) + chunk - 1) // chunk)
    if workers <= 1:
        yield from map(function, items)
        return
    # Fresh interpreters: forking a process whose libraries have started threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(function, items, chunksize=chunk)
