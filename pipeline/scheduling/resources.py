"""What stages need and what the machine has: threads, memory, GPUs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.machine import cores, memory

if TYPE_CHECKING:
    from pipeline.params import Params

MEMORY_SHARE = 0.9  # of the machine's memory that stages may be expected to fill; the rest is the system's
ALL_CORES = ("download", "augment", "corrupt")  # spread their work over processes, one for each core
LAUNCHED = ("train", "extract", "predict", "sample")  # become the launcher of `defaults.launch`, with a network


class Needs(NamedTuple):
    """What a stage takes while it runs.

    Attributes:
        threads: of the processor.
        memory_mb: 0 where it is not known.
        gpu: whether it takes one.
        all_gpus: whether that one is all there are, which a launcher deals out to the stage's processes.
    """

    threads: int = 1
    memory_mb: float = 0.0
    gpu: bool = False
    all_gpus: bool = False


class Machine(NamedTuple):
    """What there is.

    Attributes:
        gpus: the indices that CUDA_VISIBLE_DEVICES takes; empty without a GPU.
    """

    cores: int
    memory_mb: float
    gpus: tuple[str, ...] = ()


def machine() -> Machine:
    """This one; CUDA_VISIBLE_DEVICES says which GPUs it has, where it is set."""
    return Machine(cores(), memory() / 2**20, _gpus())


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        indices = tuple(index.strip() for index in visible.split(","))
        return tuple(index for index in indices if index and index != "-1")
    known = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    if not known and shutil.which("nvidia-smi"):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        known = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return tuple(str(index) for index in range(known))


def needs(params: Params, verb: str, name: str | None, *, memory_mb: float, has_gpus: bool) -> Needs:
    """What a stage takes: `resources` of params.yaml over what its work is known to be.

    Args:
        params: those of the project.
        verb: the command.
        name: its entry of params.yaml.
        memory_mb: what it took the last time, 0 if it never ran.
        has_gpus: whether the machine has any.
    """
    network = _is_network(params, verb, name)
    threads = cores() if verb in ALL_CORES else params.defaults.threads if network else 1
    gpu = network and params.defaults.device != "cpu"
    is_launched = network and verb in LAUNCHED and bool(params.defaults.launch)
    if is_launched:
        threads = cores()
    for key in (verb, name, f"{verb}@{name}"):
        asked = params.resources.get(str(key))
        if asked is not None:
            threads = asked.threads or threads
            memory_mb = 1024 * asked.memory_gb if asked.memory_gb is not None else memory_mb
            gpu = asked.device == "gpu" if asked.device is not None else gpu
    return Needs(threads, memory_mb, gpu and has_gpus, gpu and has_gpus and is_launched)


def _is_network(params: Params, verb: str, name: str | None) -> bool:
    """Whether the stage computes with torch, and so with `defaults.threads` and on `defaults.device`."""
    from pipeline.params import (
        HANDMADE_BACKBONES,
        is_fitted,
    )  # loads pydantic, which a repro without work does not need

    def is_extracted(features: str) -> bool:
        return features not in params.features or params.features[features].backbone not in HANDMADE_BACKBONES

    def is_trained(run: str) -> bool:
        return run not in params.learners or not is_fitted(params.learners[run].model)

    name = str(name)
    if verb == "extract":
        return is_extracted(name)
    if verb in ("train", "predict", "sample"):
        return is_trained(name)
    if verb == "search" and name in params.searches:
        return is_trained(params.searches[name].run)
    if verb == "visualise" and name in params.visualisations:
        kind, _, run = params.visualisations[name].inputs.partition("/")
        return kind == "checkpoints" and is_trained(run)
    if verb == "corrupt" and name in params.robustness:
        run = params.robustness[name].run  # one that was fitted stands behind the backbone of its features
        return is_trained(run) or is_extracted(params.runs[run].inputs.partition("/")[2])
    return False


@dataclass
class Pool:
    """What of a machine is free.

    Attributes:
        machine: all of it.
        oversubscribe: threads and memory are not counted.
        per_gpu: stages that may share a GPU.
    """

    machine: Machine
    oversubscribe: bool = False
    per_gpu: int = 1
    _taken: dict[str, tuple[Needs, str | None]] = field(default_factory=dict)

    def fits(self, needs: Needs) -> bool:
        """Whether a stage can start beside those that run; one that needs more than there is runs alone."""
        return self._fits(needs, list(self._taken))

    def fits_once_gone(self, needs: Needs, gone: set[str]) -> bool:
        """The same, were those stages done."""
        return self._fits(needs, [name for name in self._taken if name not in gone])

    def _fits(self, needs: Needs, running: list[str]) -> bool:
        beside = [self._taken[name][0] for name in running]
        slots = len(self.machine.gpus) * self.per_gpu
        if needs.gpu and sum(slots if each.all_gpus else each.gpu for each in (needs, *beside)) > slots:
            return False
        if self.oversubscribe or not beside:
            return True
        threads = needs.threads + sum(each.threads for each in beside)
        memory = needs.memory_mb + sum(each.memory_mb for each in beside)
        return threads <= self.machine.cores and memory <= MEMORY_SHARE * self.machine.memory_mb

    def take(self, name: str, needs: Needs) -> str | None:
        """Notes that a stage runs; the index of its GPU, those of all with commas, or None where it needs none."""
        gpu = None
        if needs.all_gpus:
            gpu = ",".join(self.machine.gpus)
        elif needs.gpu:
            busy = Counter(taken for _, taken in self._taken.values())
            gpu = min(self.machine.gpus, key=lambda index: busy[index])
        self._taken[name] = (needs, gpu)
        return gpu

    def give_back(self, name: str) -> None:
        """Notes that a stage is done."""
        del self._taken[name]
