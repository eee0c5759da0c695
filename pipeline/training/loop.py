"""The training loop; it knows no task, only models with `loss(batch)`.

A model may have two methods more. `measure(batch)`, for validation: its losses as `loss` gives them, and its metrics,
each as a pair of tensors, numerator and denominator, that are summed over the split and divided; of more than one
element the quotients are averaged, without those of denominator 0. `finish(batches)`, called once after training with
the training images as they are: for what is stored rather than learnt.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.loader import Loader
from pipeline.errors import DivergedError, ParamsError, PipelineError, did_you_mean
from pipeline.interruption import Interruption, deferred
from pipeline.models.layers import spared
from pipeline.progress import told_progress
from pipeline.structures import Batch
from pipeline.training import optim
from pipeline.training.checkpoint import Snapshots
from pipeline.training.distributed import Processes
from pipeline.training.memory import is_out_of_memory
from pipeline.training.regularise import augment_batch
from pipeline.training.seeding import Compute, derive
from pipeline.training.state import Row, State, best_epoch, column_of

SNAPSHOT_SECONDS = 10.0
SNAPSHOT_SHARE = 0.05  # of the time at most goes into saving: what takes a second is saved every twenty
GPU_STEPS = 16  # after which losses are read from a GPU, for it stands still until the next step is prepared

Found = tuple[list[tuple[dict[str, Tensor], int]], Tensor]


def fit(
    model: Any,
    train: Loader,
    val: Loader | None,
    training: Any,
    *,
    seed: int,
    compute: Compute,
    snapshots: Snapshots | None = None,
    name: str = "training",
    epochs: int | None = None,
    watch: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Trains `model` in place.

    Every random number derives from (seed, epoch, step): a run that goes on from a snapshot ends in the same weights.
    SIGINT and SIGTERM end it after the step, with a snapshot of it.

    Args:
        model: on the CPU.
        train, val: batches of the two splits; without `val` the last weights are kept.
        training: a run's `training` section; `batch_size` is that of `train`.
        seed: of order, augmentation and the model's own noise.
        compute: device and precision.
        snapshots: where the state of an unfinished run is kept.
        name: of the run, for messages.
        epochs: how many of `training.epochs` are trained; the schedule is that of all. None: all.
        watch: called with each row as it comes; what it raises ends the training.

    Returns:
        One row per epoch: epoch (from 1), lr, loss and its parts, the same of `val` and its metrics as `val_...`, and
        grad_norm, the mean norm of the gradient before it is clipped. With an average of the weights it is the average
        that is validated, for it is what is kept.

    Raises:
        DivergedError: a loss or a gradient is not finite; names run, epoch, step and parts.
        PipelineError: the memory does not hold a batch, batch norm has too small a one, or the model is not compiled.
        ParamsError: `training.monitor` names no column.
    """
    try:
        with deferred() as interruption:
            fitting = _Fitting(
                model, train, val, training, seed=seed, compute=compute, snapshots=snapshots, name=name, watch=watch
            )
            return fitting.run(training.epochs if epochs is None else epochs, interruption)
    except (MemoryError, RuntimeError, ValueError) as error:
        message = _told(error, name, train, compute)
        if message is None:
            raise
        raise PipelineError(message) from None


def _told(error: Exception, name: str, train: Loader, compute: Compute) -> str | None:
    """What to do about an error that batches of another size would not have; None of any other error."""
    if is_out_of_memory(error):
        height, width = train.image_size
        return (
            f"{name}: out of memory on {compute.device} with batches of {train.batch_size} images of {height}x{width}; "
            "fix: halve training.batch_size (and double training.accumulate), or lower training.image_size"
        )
    if "Expected more than 1 value per channel" in str(error):
        last = len(train.split) % train.batch_size or train.batch_size
        return (
            f"{name}: batch norm needs more than one value, and the last of {len(train)} batches has {last} image(s); "
            f"fix: another training.batch_size than {train.batch_size}"
        )
    if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
        return f"{name}: torch.compile cannot ({' '.join(str(error).split())[:200]}); fix: training.compile: false"
    return None


class _Fitting:
    """One call of `fit`."""

    def __init__(
        self,
        model: Any,
        train: Loader,
        val: Loader | None,
        training: Any,
        *,
        seed: int,
        compute: Compute,
        snapshots: Snapshots | None,
        name: str,
        watch: Callable[[Row], None] | None,
    ) -> None:
        # L-BFGS looks at all weights as one vector, without copying them
        layout = torch.contiguous_format if training.optimizer == "lbfgs" else torch.channels_last
        self.model = model.to(compute.device, memory_format=layout)
        if compute.device.type == "cpu":
            spared(self.model)
        self.train, self.val, self.training = train, val, training
        self.seed, self.compute, self.name, self.watch = seed, compute, name, watch
        self.processes = Processes(compute)
        self.steps_per_epoch = math.ceil(len(train) / training.accumulate)
        optimiser = optim.optimiser(model, training)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        total = training.epochs * self.steps_per_epoch
        warmup = round(training.warmup_epochs * self.steps_per_epoch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, optim.scheduled(training, total=total, warmup=warmup))
        keeps_best = val is not None and training.keep == "best"
        self.state = State(model, optimiser, schedule, training, keeps_best=keeps_best)
        self.learner = self.processes.prepare(_Learner(model))
        if training.compile:
            self.learner.compile()
        self.snapshots = snapshots
        if snapshots is not None and (content := snapshots.load()) is not None:
            self.state.restore(content, self.processes, compute.device)
        if snapshots is not None and self.processes.is_main:
            snapshots.write_log(self.state.rows)
        self.next_save = time.monotonic() + SNAPSHOT_SECONDS

    def run(self, epochs: int, interruption: Interruption) -> list[Row]:
        """Trains up to so many epochs, unless it is over sooner."""
        self.epochs, self.interruption = epochs, interruption
        state, steps = self.state, self.steps_per_epoch
        with self._telling(epochs * steps, state.epoch * steps + state.step) as self.bar:
            while state.epoch < epochs and not self._is_patience_over():
                if state.step == 0:
                    torch.manual_seed(derive(self.seed, "epoch", state.epoch, *self.processes.apart))
                self._epoch()
                row = self._row()
                state.end_epoch(row)
                if self.snapshots is not None and self.processes.is_main:
                    self.snapshots.add_to_log(row)
                self._tell()
                if self.watch is not None:
                    self.watch(row)
                self._pause()
        if self.snapshots is not None and self.snapshots.of_many:
            self._save()
        state.end()
        if hasattr(self.model, "finish"):
            self.model.eval()
            with torch.no_grad(), self.compute.autocast():
                self.model.finish(batch.to(self.compute.device) for batch in self.train.batches())
        return state.rows

    def _epoch(self) -> None:
        """The steps of an epoch that are still to do."""
        state, accumulate = self.state, self.training.accumulate
        self.model.train()
        every = GPU_STEPS if self.compute.device.type == "cuda" else 1
        batches = self._batches(state.epoch, state.step * accumulate)
        for step in range(state.step, self.steps_per_epoch):
            first = step * accumulate
            self._step([next(batches) for _ in range(first, min(first + accumulate, len(self.train)))])
            state.step += 1
            if state.step % every == 0 or state.step == self.steps_per_epoch:
                self._pause()
                self._tell()

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The augmented batches of an epoch, in its own random order, from batch `start` on."""
        train, online = self.train, self.training.online
        order = np.random.default_rng(derive(self.seed, "order", epoch)).permutation(len(train.split))
        order = order[start * train.batch_size :]
        if not (online.mixup or online.cutmix):  # which blend images of all processes
            order = self.processes.needed(order, train.batch_size)
        num_classes = len(train.split.info.classes)
        for step, batch in enumerate(train.batches(order), start):
            generator = torch.Generator().manual_seed(derive(self.seed, "augment", epoch, step))
            yield augment_batch(batch, online, num_classes, generator)

    def _step(self, batches: list[Batch]) -> None:
        """One step of the optimiser, with the gradient of the batches as if they were one."""
        state = self.state
        total = sum(len(batch.images) for batch in batches)
        shares = [self.processes.share(batch) for batch in batches]
        if isinstance(state.optimiser, torch.optim.LBFGS):
            found = self._line_search(shares, total)
        else:
            found = self._gradient(shares, total)
            state.optimiser.step()
        state.losses.add(*found)
        state.schedule.step()
        if state.average is not None:
            state.average.update(self.model, state.epoch * self.steps_per_epoch + state.step + 1)

    def _gradient(self, shares: list[tuple[Batch, int]], total: int) -> Found:
        """Computes the gradient, and clips it.

        Args:
            shares: this process's part of each batch, and its number of images.
            total: images of all batches and processes.

        Returns:
            What `Losses.add` takes: the losses of each batch with its number of images, and the gradient's norm.
        """
        self.state.optimiser.zero_grad(set_to_none=True)
        losses = []
        for index, (batch, num) in enumerate(shares):
            batch = batch.to(self.compute.device)
            with self.processes.step(self.learner, num, is_last=index == len(shares) - 1):
                with self.compute.autocast():
                    parts = self.learner(batch)
                self.processes.backward(parts["loss"], num, total)
            losses.append((parts, num))
        return losses, self.processes.clip(self.parameters, self.training.clip_norm)

    def _line_search(self, shares: list[tuple[Batch, int]], total: int) -> Found:
        """A step of L-BFGS, which asks for losses and gradients at several points, all with the same noise."""
        seed = derive(self.seed, "search", self.state.epoch, self.state.step, *self.processes.apart)
        found: list[Found] = []
        shares = [(batch.to(self.compute.device), num) for batch, num in shares]  # once for all points

        def closure() -> Tensor:
            torch.manual_seed(seed)
            batches, norm = self._gradient(shares, total)
            if not found:
                found.append((batches, norm))
            losses = [parts["loss"].detach() * (num / total) for parts, num in batches]
            return self.processes.sum(torch.stack(losses).sum())

        self.state.optimiser.step(closure)
        return found[0]

    def _row(self) -> Row:
        """The row of the log of the epoch whose steps are done."""
        state = self.state
        sums = _total(self.processes.gather(state.losses.sums))
        row: Row = {"epoch": state.epoch + 1, "lr": float(state.schedule.get_last_lr()[-1])}
        row |= {name: value / len(self.train.split) for name, value in sums.items()}
        if self.val is not None:
            with state.average.in_place_of(self.model) if state.average is not None else nullcontext():
                found = validate(
                    self.model,
                    self.val,
                    self.seed,
                    self.compute,
                    self.processes,
                    lambda: bool(self.interruption.number),
                )
            self._pause()  # before the row, which is not whole where validation was broken off
            row |= {f"val_{name}": value for name, value in found.items()}
            self._check_monitor(row)
        return row | {"grad_norm": state.losses.norms / state.losses.steps}

    def _pause(self) -> None:
        """Between two steps: looks at what came of the last ones, saves now and then, and leaves where asked to."""
        fault = self.state.losses.read()
        is_due = self.snapshots is not None and self.processes.is_main and time.monotonic() >= self.next_save
        told = self.processes.gather((fault, self.interruption.number, is_due))
        for fault, _, _ in told:
            if fault is not None:
                raise DivergedError(f"{self.name} epoch {self.state.epoch + 1} {fault}")
        self.interruption.number = max(number for _, number, _ in told)
        if self.snapshots is not None and (self.interruption.number or any(due for _, _, due in told)):
            self._save()
        if self.interruption.number:
            self.interruption.leave()

    def _save(self) -> None:
        """Keeps a snapshot; all processes together."""
        assert self.snapshots is not None
        started = time.monotonic()
        content = self.state.content(self.processes, self.compute.device)
        if self.processes.is_main:
            self.snapshots.save(content)
        ended = time.monotonic()
        self.next_save = ended + max(SNAPSHOT_SECONDS, (ended - started) / SNAPSHOT_SHARE)

    def _is_patience_over(self) -> bool:
        training, rows = self.training, self.state.rows
        if training.patience is None or self.val is None or not rows:
            return False
        return len(rows) - best_epoch(rows, training.monitor) >= training.patience

    def _check_monitor(self, row: Row) -> None:
        training = self.training
        if (training.keep == "best" or training.patience or training.retrain) and training.monitor not in row:
            near = did_you_mean(training.monitor, row)
            raise ParamsError(f"{self.name} training.monitor: no column {training.monitor!r}; {near}")

    def _telling(self, total: int, done: int) -> AbstractContextManager[Callable[[int, str], None]]:
        return told_progress(total, done) if self.processes.is_main else nullcontext(lambda done, words: None)

    def _tell(self) -> None:
        """Shows how it goes: the loss so far in the epoch, and what the last validation found."""
        state = self.state
        last = state.rows[-1] if state.rows else {}
        is_under_way = state.step > 0
        loss = state.losses.sums.get("loss", 0.0) / max(1, state.losses.num) if is_under_way else last["loss"]
        words = [f"{self.name} epoch {state.epoch + is_under_way}/{self.epochs}", f"loss {loss:.3g}"]
        words += [f"{k} {v:.3g}" for k, v in last.items() if k.startswith("val_") and not k.startswith("val_loss_")]
        self.bar(state.epoch * self.steps_per_epoch + state.step, ", ".join(words))


class _Learner(nn.Module):
    """A model whose forward pass is its loss, for what wraps a module calls that."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The named losses."""
        return self.model.loss(batch)  # type: ignore[no-any-return]


@torch.no_grad()
def validate(
    model: Any,
    val: Loader,
    seed: int,
    compute: Compute,
    processes: Processes | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Row:
    """The loss and its parts on a split, averaged over images, and the metrics, with the same noise at every call.

    Args:
        model: on its device.
        val: the split.
        seed: of the noise.
        compute: device and precision.
        processes: among which the batches are dealt out; None: this one alone.
        is_stopped: whether to break off, with numbers that mean nothing; one process alone may.
    """
    processes = processes or Processes(compute)
    model.eval()
    torch.manual_seed(derive(seed, "validate", *processes.apart))
    losses: list[tuple[dict[str, Tensor], int]] = []
    metrics: dict[str, np.ndarray] = {}
    for batch in val.batches(processes.whole_batches(len(val.split), val.batch_size)):
        batch = batch.to(compute.device)
        with compute.autocast():
            parts, measured = model.measure(batch) if hasattr(model, "measure") else (model.loss(batch), {})
        losses.append((parts, len(batch.images)))
        for name, pair in measured.items():
            values = torch.stack([torch.as_tensor(value) for value in pair]).double().cpu().numpy()
            metrics[name] = metrics.get(name, 0) + values
        if processes.num == 1 and is_stopped():
            break
    sums: dict[str, float] = {}
    for parts, num in losses:
        for name, value in parts.items():
            sums[column_of(name)] = sums.get(column_of(name), 0.0) + value.item() * num
    found = {name: value / len(val.split) for name, value in _total(processes.gather(sums)).items()}
    for name, (numerator, denominator) in _total(processes.gather(metrics)).items():
        is_there = denominator > 0
        quotients = numerator[is_there] / denominator[is_there]
        found[name] = float(quotients.mean()) if quotients.size else math.nan
    return found


def _total(of_processes: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of each entry."""
    total: dict[str, Any] = {}
    for values in of_processes:
        for name, value in values.items():
            total[name] = total[name] + value if name in total else value
    return total
