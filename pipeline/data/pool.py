"""A function over many items on all cores, streaming, with the results in the order of the items."""

from __future__ import annotations

import functools
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.process import BaseProcess
from typing import TypeVar

from pipeline.errors import PipelineError
from pipeline.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK_SECONDS = 0.1  # long beside what handing over a chunk costs (0.2 to 1 ms), short enough that few results wait
MAX_CHUNK = 256
AHEAD = 3  # chunks per process that are under way; memory is bounded by them


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    chunk: int = 16,
    name: Callable[[Item], str] = str,
) -> Generator[Result]:
    """`function` of each item, in order; the work is spread over processes where there are several cores.

    Args:
        function: a module's function or a `functools.partial` of one; its result must depend on the item alone.
        items: taken as the work goes on, so that there may be any number of them.
        chunk: items handed to a process at first, later as many as take CHUNK_SECONDS; no more items than that run in
            this process alone.
        name: what an item is called in a message.

    Raises:
        PipelineError: a process was killed or crashed; names the item that it worked on.
    """
    for _, results in block_map(functools.partial(_each, function), items, chunk, name):
        yield from results


def _each(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


def block_map(
    function: Callable[[list[Item]], Result],
    items: Iterable[Item],
    chunk: int = 16,
    name: Callable[[Item], str] = str,
) -> Generator[tuple[list[Item], Result]]:
    """Each chunk of items in a row with the `function` of it, handed out as `ordered_map` does.

    How many make up a chunk depends on how fast the machine is; no output may depend on it.
    """
    items = iter(items)
    num_cores = cores()
    first = list(islice(items, chunk * num_cores))
    workers = min(num_cores, (len(first) + chunk - 1) // chunk)
    items = chain(first, items)
    del first
    if workers <= 1:
        while part := list(islice(items, chunk)):
            yield part, function(part)
        return
    # Fresh interpreters: forking a process whose libraries have started threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        under_way: deque[tuple[list[Item], Future[tuple[Result, float]]]] = deque()
        try:
            while True:
                while len(under_way) < AHEAD * workers and (part := list(islice(items, chunk))):
                    under_way.append((part, pool.submit(_timed, function, part)))
                if not under_way:
                    return
                result, seconds = under_way[0][1].result()
                part, _ = under_way.popleft()
                fitting = round(len(part) * CHUNK_SECONDS / max(seconds, 1e-6))
                chunk = max(1, min(MAX_CHUNK, 2 * len(part), fitting))
                yield part, result
        except BrokenProcessPool:
            raise _crash(function, [item for part, _ in under_way for item in part], name) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone, even by kill -9; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _timed(function: Callable[[list[Item]], Result], items: list[Item]) -> tuple[Result, float]:
    start = time.perf_counter()
    return function(items), time.perf_counter() - start


def _crash(function: Callable[[list[Item]], Result], items: list[Item], name: Callable[[Item], str]) -> PipelineError:
    """Tries the items that were under way one by one, in a process that may die, to find which it was."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as pool:
        for item in items:
            try:
                pool.submit(function, [item]).result()
            except BrokenProcessPool:
                return PipelineError(
                    f"{name(item)}: the process that worked on it crashed; fix: remove or replace this item"
                )
            except Exception as error:
                return PipelineError(f"{name(item)}: {error}; fix: remove or replace this item")
    return PipelineError(
        f"{name(items[0])} to {name(items[-1])}: a process that worked on these was killed, "
        "perhaps for want of memory; fix: free memory or use fewer cores (taskset)"
    )
