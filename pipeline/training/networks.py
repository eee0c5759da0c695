"""A network trained as its entry in params.yaml says: the fit itself, folds and training again."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch

from pipeline import paths
from pipeline.data import parts
from pipeline.data.loader import Loader
from pipeline.data.store import Split
from pipeline.params import Defaults, Generator, Run
from pipeline.training import launching, loop, seeding, transfer
from pipeline.training.beginning import Beginning
from pipeline.training.checkpoint import Checkpoint, Snapshots, run_digest
from pipeline.training.state import Row, best_epoch


def trained(
    entry: Run | Generator, name: str, defaults: Defaults, seed: int, *, of_many: bool = False
) -> tuple[Checkpoint, list[Row]]:
    """Trains a network from a seed, or goes on with a training that was interrupted.

    With `training.folds` the run is trained before on the rest of train and val for each fold, and judged there by the
    fold. With `training.retrain` the weights are of a last training on train and val, of as many epochs as were best by
    `monitor`, along the same schedule.

    Args:
        entry: of `runs` or `generators`.
        name: its name there.
        defaults: of params.yaml.
        seed: instead of that of `defaults`.
        of_many: other seeds follow, so that the end of this training is worth a snapshot.

    Returns:
        The checkpoint, and the rows of its log: one per epoch with the columns of `loop.fit`, without those of val
        where `training.splits` has it; of the folds, for each column `val_...`, the mean `val_..._folds` and the
        standard deviation `val_..._folds_std`, in epochs that all of them reached; of the last training its losses as
        `loss_retrain` and so on.
    """
    course = _Course(entry, name, defaults.model_copy(update={"seed": seed}), of_many)
    training = course.training
    train, val = course.store.split("train"), course.store.split("val")
    of_folds = []
    if training.folds:
        for number, fold in enumerate(parts.folds(parts.joined([train, val]), training.folds, seed), 1):
            of_folds.append(course.fit(*fold, phase=f"fold_{number}")[1])
    if "val" in training.splits:
        model, rows = course.fit(parts.joined([train, val]), None, phase="run")
    else:
        model, rows = course.fit(train, val, phase="run")
    rows = [dict(row) for row in rows]
    if of_folds:
        _add_folds(rows, of_folds)
        kept = [fold[best_epoch(fold, training.monitor) - 1 if training.keep == "best" else -1] for fold in of_folds]
        said = ", ".join(f"{key} {mean:.4g} ± {std:.2g}" for key, (mean, std) in _spread(kept).items())
        if seeding.is_main():
            print(f"{name}: over {training.folds} folds {said}", file=sys.stderr)
    if training.retrain:
        epochs = best_epoch(rows, training.monitor)
        model, again = course.fit(parts.joined([train, val]), None, phase="retrain", epochs=epochs)
        for row, other in zip(rows, again, strict=False):
            row |= {f"{key}_retrain": value for key, value in other.items() if key.startswith("loss")}
    arrays = {key: value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    return Checkpoint(entry.model, entry.model_params, course.beginning.info, arrays), rows


class _Course:
    """All trainings of an entry with one seed."""

    def __init__(self, entry: Run | Generator, name: str, defaults: Defaults, of_many: bool) -> None:
        self.beginning = Beginning(entry, name, defaults)
        self.training, self.store = self.beginning.training, self.beginning.store
        self.of_many = of_many or bool(self.training.folds or self.training.retrain)
        self.num_processes = launching.num_processes()
        start = self.beginning.start
        settings = {
            "entry": entry.model_dump(include={"model", "inputs", "model_params", "training"}),
            "defaults": defaults.model_dump(),
            "device": seeding.device_of(defaults).type,
            "start": transfer.digest(start),
            "processes": self.num_processes,
            "torch": torch.__version__,
        }
        teachers = [start.model] if start else []
        self.digest = run_digest(settings, paths.inputs(entry.images), entry.model, *teachers)

    def fit(self, train: Split, val: Split | None, *, phase: str, epochs: int | None = None) -> tuple[Any, list[Row]]:
        """A trained model and the rows of its log; the same whatever was trained before it."""
        model, compute = self.beginning.model()
        batch_size = self.beginning.batch_size(model, train, compute, num=self.num_processes)
        size, seed, name = self.beginning.size, self.beginning.defaults.seed, self.beginning.name
        rows = loop.fit(
            model,
            Loader(train, batch_size, size),
            Loader(val, batch_size, size) if val is not None else None,
            self.training,
            seed=seed,
            compute=compute,
            snapshots=Snapshots(name, seed, self.digest, phase=phase, of_many=self.of_many),
            name=name if phase == "run" else f"{name} {phase.replace('_', ' ')}",
            epochs=epochs,
        )
        return model, rows


def _add_folds(rows: list[Row], of_folds: list[list[Row]]) -> None:
    """Adds to each epoch's row the spread over the folds at that epoch."""
    for row, at_epoch in zip(rows, zip(*of_folds, strict=False), strict=False):
        for key, (mean, std) in _spread(list(at_epoch)).items():
            row[f"{key}_folds"], row[f"{key}_folds_std"] = mean, std


def _spread(rows: list[Row]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation (divided by n - 1) of what was measured on held-out images."""
    found = {}
    for key in (key for key in rows[0] if key.startswith("val_")):
        values = [row[key] for row in rows]
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        found[key] = mean, math.sqrt(squares / max(1, len(values) - 1))
    return found
