"""The training loop; it knows no task, only models with `loss(batch)`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.data.loader import Loader
from pipeline.errors import PipelineError
from pipeline.progress import progress
from pipeline.structures import Batch
from pipeline.training import optim
from pipeline.training.checkpoint import Snapshots
from pipeline.training.regularise import augment_batch
from pipeline.training.seeding import Compute, derive

SNAPSHOT_SECONDS = 10.0


class Average:
    """Exponential moving average of a model's weights (Polyak and Juditsky 1992), with a decay that warms up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items() if v.is_floating_point()}

    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards the model's weights after step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = model.state_dict()
        for name, average in self.weights.items():
            average.lerp_(state[name].detach(), 1 - decay)


def fit(
    model: Any,
    train: Loader,
    val: Loader,
    training: Any,
    *,
    seed: int,
    compute: Compute,
    snapshots: Snapshots | None = None,
) -> list[dict[str, float]]:
    """Trains `model` in place.

    Every random number derives from (seed, epoch, step): a run that goes on from a snapshot ends in the same weights.

    Args:
        model: on the CPU.
        train, val: batches of the two splits.
        training: a run's `training` section.
        seed: of order, augmentation and the model's own noise.
        compute: device and precision.
        snapshots: where the state of an unfinished run is kept.

    Returns:
        One row per epoch: epoch (from 1), lr, loss and its parts, val_loss.

    Raises:
        PipelineError: the loss is not finite; names epoch, step and parts.
    """
    model.to(compute.device, memory_format=torch.channels_last)
    optimiser = optim.optimiser(model, training)
    steps_per_epoch = len(train)
    total, warmup = training.epochs * steps_per_epoch, round(training.warmup_epochs * steps_per_epoch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: optim.factor(step, total=total, warmup=warmup, schedule=training.schedule)
    )
    average = Average(model, training.ema_decay) if training.ema_decay else None
    rows: list[dict[str, float]] = []
    if snapshots is not None and (state := snapshots.load()) is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        rows = state["rows"]
        if average is not None:
            average.weights = {k: v.to(compute.device) for k, v in state["average"].items()}

    saved_at = time.monotonic()
    for epoch in progress(range(len(rows), training.epochs), "train"):
        torch.manual_seed(derive(seed, "epoch", epoch))
        model.train()
        sums: dict[str, float] = {}
        for step, batch in enumerate(_epoch(train, training, seed, epoch)):
            batch = batch.to(compute.device)
            with compute.autocast():
                parts = model.loss(batch)
            if not math.isfinite(parts["loss"].item()):
                found = ", ".join(f"{name} {value.item():g}" for name, value in parts.items())
                raise PipelineError(
                    f"epoch {epoch + 1} step {step + 1}: the loss is not finite ({found}); fix: lower lr"
                )
            optimiser.zero_grad(set_to_none=True)
            parts["loss"].backward()
            if training.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimiser.step()
            schedule.step()
            if average is not None:
                average.update(model, epoch * steps_per_epoch + step + 1)
            _add(sums, parts, len(batch.images))
        rows.append(
            {
                "epoch": epoch + 1,
                "lr": float(schedule.get_last_lr()[-1]),
                **{name: value / len(train.split) for name, value in sums.items()},
                **{f"val_{name}": part for name, part in validate(model, val, seed, compute).items()},
            }
        )
        if snapshots is not None and time.monotonic() - saved_at > SNAPSHOT_SECONDS:
            state = {
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "rows": rows,
            }
            snapshots.save(state | ({"average": average.weights} if average is not None else {}))
            saved_at = time.monotonic()
    if average is not None:
        model.load_state_dict(average.weights, strict=False)
    return rows


def _epoch(train: Loader, training: Any, seed: int, epoch: int) -> Iterator[Batch]:
    """The augmented batches of an epoch, in its own random order."""
    order = np.random.default_rng(derive(seed, "order", epoch)).permutation(len(train.split))
    num_classes = len(train.split.info.classes)
    for step, batch in enumerate(train.batches(order)):
        generator = torch.Generator().manual_seed(derive(seed, "augment", epoch, step))
        yield augment_batch(batch, training.online, num_classes, generator)


@torch.no_grad()
def validate(model: Any, val: Loader, seed: int, compute: Compute) -> dict[str, float]:
    """The loss and its parts on a split, averaged over images, with the same noise at every call."""
    model.eval()
    torch.manual_seed(derive(seed, "validate"))
    sums: dict[str, float] = {}
    for batch in val.batches():
        with compute.autocast():
            _add(sums, model.loss(batch.to(compute.device)), len(batch.images))
    return {name: value / len(val.split) for name, value in sums.items()}


def _add(sums: dict[str, float], parts: dict[str, torch.Tensor], weight: int) -> None:
    for name, value in parts.items():
        column = name if name == "loss" else f"loss_{name}"
        sums[column] = sums.get(column, 0.0) + value.item() * weight
