"""Where a training stands: what a snapshot holds, so that one who goes on from it ends in the same bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.distributed import Processes

LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "rmse", "nll", "perplexity", "grad_norm", "lr")
"""How the name of a column begins, or the part after a `val_`, where less is more; elsewhere higher is better."""

Row = dict[str, float]


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

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights, and then its own again."""
        state = model.state_dict()
        own = {name: state[name].detach().clone() for name in self.weights}
        model.load_state_dict(self.weights, strict=False)
        try:
            yield
        finally:
            model.load_state_dict(own, strict=False)


class Losses:
    """The losses and gradient norms of an epoch's steps, in this process.

    They are read from the device in lots, for who reads them waits for the device.

    Attributes:
        sums: of each column of the log, over images.
        num: of images.
        norms: sum of the gradients' norms.
        steps: how many were read.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.num = 0
        self.norms = 0.0
        self.steps = 0
        self._pending: list[tuple[list[tuple[dict[str, Tensor], int]], Tensor]] = []

    def add(self, batches: list[tuple[dict[str, Tensor], int]], norm: Tensor) -> None:
        """Notes a step.

        Args:
            batches: of each batch its losses, means over images, and the number of images.
            norm: of the gradient.
        """
        self._pending.append(([({k: v.detach() for k, v in parts.items()}, num) for parts, num in batches], norm))

    def read(self) -> str | None:
        """Adds up what was noted; returns what is not finite of it, and in which step, if anything is."""
        if not self._pending:
            return None
        tensors = [tensor for batches, norm in self._pending for parts, _ in batches for tensor in parts.values()]
        tensors += [norm for _, norm in self._pending]
        values = iter(torch.stack([tensor.double() for tensor in tensors]).tolist())
        steps = [[({k: next(values) for k in parts}, num) for parts, num in batches] for batches, _ in self._pending]
        self._pending.clear()
        for batches, norm in zip(steps, values, strict=True):
            self.steps += 1
            self.norms += norm
            for parts, num in batches:
                if num and not math.isfinite(parts["loss"]):
                    return f"step {self.steps}: the loss is not finite ({_shown(parts)}); fix: lower lr"
                self.num += num
                for name, value in parts.items():
                    column = column_of(name)
                    self.sums[column] = self.sums.get(column, 0.0) + value * num
            if not math.isfinite(norm):
                return (
                    f"step {self.steps}: the gradient is not finite (norm {norm:g}, {_shown(batches[-1][0])}); "
                    "fix: lower lr"
                )
        return None


def column_of(part: str) -> str:
    """The column of training.csv that holds a loss, or one of its parts."""
    return part if part == "loss" else f"loss_{part}"


def _shown(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in parts.items())


class State:
    """A training between two of its steps.

    Attributes:
        rows: of the log, one per finished epoch.
        step: steps done in the epoch under way.
        losses: of these steps.
        average: of the weights, or None.
        best: the weights of the best epoch, on the CPU; None where the last ones are kept, or before the first row.
    """

    def __init__(self, model: nn.Module, optimiser: Any, schedule: Any, training: Any, *, keeps_best: bool) -> None:
        self.model = model
        self.optimiser = optimiser
        self.schedule = schedule
        self.monitor = training.monitor if keeps_best else None
        self.average = Average(model, training.ema_decay) if training.ema_decay else None
        self.rows: list[Row] = []
        self.step = 0
        self.losses = Losses()
        self.best: dict[str, Tensor] | None = None

    @property
    def epoch(self) -> int:
        """The one under way, from 0."""
        return len(self.rows)

    def end_epoch(self, row: Row) -> None:
        """Adds a row to the log, and keeps the weights where they are the best so far and these are wanted."""
        self.rows.append(row)
        self.step, self.losses = 0, Losses()
        if self.monitor is not None and best_epoch(self.rows, self.monitor) == len(self.rows):
            state = self.model.state_dict() | (self.average.weights if self.average is not None else {})
            self.best = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def end(self) -> None:
        """Puts into the model the weights that the training is for."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None:
            self.model.load_state_dict(self.average.weights, strict=False)

    def content(self, processes: Processes, device: torch.device) -> dict[str, Any]:
        """What a snapshot holds; all processes must ask for it together."""
        own = {
            "sums": self.losses.sums,
            "num": self.losses.num,
            "norms": self.losses.norms,
            "steps": self.losses.steps,
            "noise": torch.get_rng_state(),
            "device_noise": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.weights if self.average is not None else None,
            "best": self.best,
            "rows": self.rows,
            "step": self.step,
            "processes": processes.gather(own),
        }

    def restore(self, content: dict[str, Any], processes: Processes, device: torch.device) -> None:
        """Becomes what `content` gave; the random numbers that follow are those that would have followed."""
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.schedule.load_state_dict(content["schedule"])
        if self.average is not None:
            self.average.weights = {k: v.to(device) for k, v in content["average"].items()}
        self.best, self.rows, self.step = content["best"], content["rows"], content["step"]
        own = content["processes"][processes.index]
        self.losses.sums, self.losses.num = own["sums"], own["num"]
        self.losses.norms, self.losses.steps = own["norms"], own["steps"]
        torch.set_rng_state(own["noise"])
        if own["device_noise"] is not None:
            torch.cuda.set_rng_state(own["device_noise"], device)


def higher_is_better(column: str) -> bool:
    """Whether more is better in a column of training.csv.

    >>> higher_is_better("val_top1"), higher_is_better("val_loss"), higher_is_better("loss_dice")
    (True, False, False)
    """
    name = column.removeprefix("val_")
    return not name.startswith(LOWER_IS_BETTER)


def best_epoch(rows: list[Row], monitor: str) -> int:
    """The epoch (from 1) with the best value of a column, the first of equals; the last one where none is a number."""
    sign = 1 if higher_is_better(monitor) else -1
    values = [(sign * row[monitor], -row["epoch"]) for row in rows if math.isfinite(row[monitor])]
    return int(-max(values)[1]) if values else len(rows)
