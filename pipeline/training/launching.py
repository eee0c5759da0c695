"""Stages on several processes: how `defaults.launch` starts them."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline import paths
from pipeline.errors import ParamsError
from pipeline.progress import progress
from pipeline.training.seeding import Compute, is_main

Result = TypeVar("Result")

LAUNCHED = ("RANK", "WORLD_SIZE", "PIPELINE_LAUNCHED")
"""Environment variables of a process that a launcher has started."""


def launch(command: str, verb: str, name: str) -> None:
    """Becomes a launcher such as `torchrun --nproc-per-node 4`, whose processes come here again and go on.

    Args:
        command: `defaults.launch`; nothing happens where it is empty.
        verb: the stage.
        name: of its entry.

    Raises:
        ParamsError: there is no such program.
    """
    if not command or any(variable in os.environ for variable in LAUNCHED):
        return
    words = shlex.split(command)
    beside = Path(sys.executable).with_name(words[0])
    program = str(beside) if beside.exists() else shutil.which(words[0])
    if program is None:
        raise ParamsError(f"{paths.PARAMS} defaults.launch: no program {words[0]!r}; fix: install it, or leave it out")
    sys.stdout.flush()
    arguments = [program, *words[1:], "-m", "pipeline", verb, name]
    os.execve(program, arguments, os.environ | {"PIPELINE_LAUNCHED": "1"})


def num_processes() -> int:
    """How many processes work on this stage together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def dealt(starts: range, work: Callable[[int], Result], compute: Compute, title: str) -> list[Result]:
    """The results of `work` for all starts of batches, in their order.

    Of several processes each works on every other start or so, and has the results of all. What a batch gives must
    depend on its start alone.
    """
    num = num_processes()
    if num == 1:
        return [work(start) for start in progress(starts, title)]
    from pipeline.training.distributed import Processes

    processes = Processes(compute)
    own = starts[processes.index :: num]
    shares = processes.gather([work(start) for start in (progress(own, title) if is_main() else own)])
    in_order = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return list(itertools.islice(in_order, len(starts)))
