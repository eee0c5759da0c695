"""Trains a run or a generator. Reads its inputs and params; writes data/checkpoints/<name> and training.csv."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from pipeline import paths
from pipeline.errors import ParamsError
from pipeline.params import Generator, Params, is_fitted
from pipeline.training import fitting, seeding
from pipeline.training.checkpoint import forget, save

LAUNCHED = ("RANK", "WORLD_SIZE", "PIPELINE_LAUNCHED")
"""Environment variables of a process that a launcher has started."""


def run(params: Params, name: str) -> None:
    """Trains one entry of `runs` or `generators`."""
    entry = params.learner(name)
    if is_fitted(entry.model):
        checkpoint, rows = fitting.fitted(entry, name, params.defaults.seed)
        save(paths.checkpoint(name), checkpoint)
    else:
        if params.defaults.launch and not any(variable in os.environ for variable in LAUNCHED):
            _launch(params.defaults.launch, name)
        from pipeline.training import networks

        seeds = (entry.training and entry.training.seeds) or [params.defaults.seed]
        of_many = len(seeds) > 1
        learnt = {seed: networks.trained(entry, name, params.defaults, seed, of_many=of_many) for seed in seeds}
        if not seeding.is_main():
            return
        with paths.written_whole(paths.checkpoint(name)) as folder:
            for seed, (checkpoint, _) in learnt.items():
                save(folder if seed == seeds[0] else paths.of_seed(folder, seed), checkpoint)
        rows = learnt[seeds[0]][1]
    report = paths.generator_report(name) if isinstance(entry, Generator) else paths.run_report(name)
    _write_csv(report / "training.csv", rows)
    forget(name)


def _launch(command: str, name: str) -> None:
    """Becomes a launcher such as `torchrun --nproc-per-node 4`, whose processes come here again.

    Raises:
        ParamsError: there is no such program.
    """
    words = shlex.split(command)
    beside = Path(sys.executable).with_name(words[0])
    program = str(beside) if beside.exists() else shutil.which(words[0])
    if program is None:
        raise ParamsError(f"{paths.PARAMS} defaults.launch: no program {words[0]!r}; fix: install it, or leave it out")
    sys.stdout.flush()
    arguments = [program, *words[1:], "-m", "pipeline", "train", name]
    os.execve(program, arguments, os.environ | {"PIPELINE_LAUNCHED": "1"})


def _write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """One line per epoch, six significant digits; what an epoch does not have is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [",".join(columns)]
    lines += [",".join(f"{row[name]:.6g}" if name in row else "" for name in columns) for row in rows]
    with paths.written_whole(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
