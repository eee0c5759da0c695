"""Runs one stage: its environment before anything heavy is imported, its name checked, its cost noted."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from pipeline import git, ledger, parent, paths
from pipeline.errors import ParamsError, did_you_mean
from pipeline.params import Params, load
from pipeline.peak import Watch


def run_stage(verb: str, name: str | None, sections: Sequence[str]) -> None:
    """Runs `pipeline/stages/<verb>.py`.

    Args:
        verb: the stage.
        name: an entry of params.yaml, or None for a stage over all of them.
        sections: the mappings of params.yaml that `name` may be of; empty for a stage without a name.

    Raises:
        PipelineError: params.yaml is wrong, the name is in none of its sections, or the stage fails.
    """
    params = load()
    choices = [entry for section in sections for entry in getattr(params, section)]
    if name is not None and name not in choices:
        place = " or ".join(sections)
        raise ParamsError(f"{paths.PARAMS}: no {name!r} in {place}; {did_you_mean(name, choices)}")
    prepare_environment(params)
    signal.signal(signal.SIGTERM, _stop)
    parent.end_with_dvc()
    started = time.perf_counter()
    with Watch() as watch:
        stage = importlib.import_module(f"pipeline.stages.{verb}")
        stage.run(params) if name is None else stage.run(params, name)
    _note(verb, name, time.perf_counter() - started, watch.family_mb())


def prepare_environment(params: Params) -> None:
    """Sets what libraries read when they are imported: threads, determinism, no calls home; MLflow: see `tracking`."""
    threads = str(params.defaults.threads)
    os.environ.update(
        {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads made a 0.3 s job 5 to 29 s beside another process
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it CUDA's products differ from run to run
            "MPLBACKEND": "Agg",
            "NO_ALBUMENTATIONS_UPDATE": "1",
        }
    )


def _stop(signal_number: int, _frame: object) -> NoReturn:
    """Leaves through the `finally` blocks, so that half-written files go."""
    sys.exit(128 + signal_number)


def _note(verb: str, name: str | None, seconds: float, peak_mb: float) -> None:
    """Appends to the ledger what the stage cost; of processes that work together the first one writes."""
    if os.environ.get("RANK", "0") != "0":
        return
    torch = sys.modules.get("torch")
    had_gpu = torch is not None and torch.cuda.is_initialized()
    line = ledger.Line(
        command=verb,
        name=name,
        seconds=round(seconds, 3),
        peak_memory_mb=round(peak_mb, 1),
        gpu_seconds=round(seconds, 3) if had_gpu else 0.0,
        time=round(time.time(), 1),
        commit=git.commit(),
    )
    ledger.append(line)
