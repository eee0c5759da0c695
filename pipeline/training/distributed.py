"""One training on one or many processes, through accelerate: what each does, and how it comes together.

Every process has a share of each batch. Gradients are averaged by images, and batch norms see the images of all, so
that the weights are those of one process but for the order of sums. That holds for losses that are means over
images; a detector's and a Dice loss are averaged by images as well, which is near to one process and not equal.
Random numbers that a model draws itself (dropout, noise) are each process's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pipeline.structures import Batch
from pipeline.training.seeding import Compute


class Processes:
    """The processes of a training, of which this is one.

    Attributes:
        num: how many.
        index: of this one, from 0.
        is_main: whether this is the one that writes and speaks.
        apart: added to what a seed derives from where each process draws its own random numbers.
    """

    def __init__(self, compute: Compute) -> None:
        self._accelerator = Accelerator(
            cpu=compute.device.type == "cpu", device_placement=False, mixed_precision="no", dynamo_backend="no"
        )
        self.num = self._accelerator.num_processes
        self.index = self._accelerator.process_index
        self.is_main = self.index == 0
        self.apart = (self.index,) if self.index else ()
        self._norms = _GlobalBatchNorm()

    def prepare(self, learner: nn.Module) -> nn.Module:
        """`learner`, whose gradients come together after each backward pass."""
        return self._accelerator.prepare_model(learner)

    def share(self, batch: Batch) -> tuple[Batch, int]:
        """This process's images of a batch, and how many they are.

        One that has none, for the last batch is small, works on an image that counts nothing.
        """
        if self.num == 1:
            return batch, len(batch.images)
        start, end = self._bounds(len(batch.images))
        rows = slice(start, max(end, start + 1))
        values = {name: value[rows] for name, value in vars(batch).items() if value is not None}
        return replace(batch, **values), end - start

    def needed(self, order: np.ndarray, batch_size: int) -> np.ndarray:
        """`order` with the images of the other processes' shares replaced by one of this process's in the same batch.

        So nobody decodes more than one's share, and random numbers drawn for a whole batch stay as they are.

        Args:
            order: [N] positions of images, cut into batches of `batch_size`.
            batch_size: of all processes together.
        """
        needed = order.copy()
        for first in range(0, len(order) if self.num > 1 else 0, batch_size):
            batch = needed[first : first + batch_size]
            start, end = self._bounds(len(batch))
            batch[:start] = batch[end:] = batch[start]
        return needed

    def whole_batches(self, num: int, batch_size: int) -> np.ndarray:
        """Positions of the images of every `self.num`-th of the batches of `num` images, which are this process's."""
        positions = np.arange(num)
        return positions[positions // batch_size % self.num == self.index]

    def _bounds(self, num: int) -> tuple[int, int]:
        return num * self.index // self.num, num * (self.index + 1) // self.num

    @contextmanager
    def step(self, learner: nn.Module, num: int, *, is_last: bool) -> Iterator[None]:
        """Around forward and backward pass of one batch.

        Args:
            learner: what `prepare` gave.
            num: images of this process's share.
            is_last: of the batches whose gradients add up; only then are they averaged over processes.
        """
        if self.num == 1:
            yield
            return
        self._norms.counts = num > 0
        apart: AbstractContextManager[Any] = nullcontext() if is_last else self._accelerator.no_sync(learner)
        with apart, self._norms:
            yield

    def backward(self, loss: Tensor, num: int, total: int) -> None:
        """Adds the gradient of a batch's share to that of a step.

        Args:
            loss: mean over the share.
            num: its images.
            total: images of the step, over all processes.
        """
        weight = num * self.num / total  # the average over processes divides by their number
        self._accelerator.backward(loss if weight == 1 else loss * weight)

    def clip(self, parameters: list[nn.Parameter], norm: float) -> Tensor:
        """Scales gradients down to a norm, if it is not 0, and returns the one they had."""
        if not norm:
            return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        return self._accelerator.clip_grad_norm_(parameters, norm)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over processes, the same in all."""
        return self._accelerator.reduce(value, "sum") if self.num > 1 else value

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in their order, the same in all; each must call it at the same place."""
        return gather_object([value]) if self.num > 1 else [value]


class _GlobalBatchNorm(TorchFunctionMode):
    """Batch norms over the images of all processes, whatever module calls them and on any device.

    torch's own SyncBatchNorm works on GPUs alone.

    Attributes:
        counts: whether this process's images count.
    """

    counts = True

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch calls it for every function within the mode."""
        if function is F.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        images: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(images, running_mean, running_var, weight, bias, training, momentum, eps)
        values = images.to(torch.promote_types(images.dtype, torch.float32))
        dims = [0, *range(2, images.ndim)]
        shape = (1, -1, *(1 for _ in dims[1:]))
        own = float(self.counts)
        num = _sum(values.new_tensor([own * values.numel() / values.shape[1]]))
        if values.numel() == values.shape[1] and num < 2:  # asked of few batches, for it waits for the device
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {images.shape}")
        mean = _sum(own * values.sum(dims)) / num
        centred = values - mean.view(shape)
        var = _sum(own * centred.square().sum(dims)) / num
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                running_var.lerp_((var * num / (num - 1)).to(running_var.dtype), momentum)
        result = centred * (var + eps).rsqrt().view(shape)
        if weight is not None:
            result = result * weight.view(shape)
        if bias is not None:
            result = result + bias.view(shape)
        return result.to(images.dtype)


class _Sum(torch.autograd.Function):
    """The sum over processes, and the sum over processes of its gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # type: ignore[override]
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    return _Sum.apply(value)  # type: ignore[no-any-return,no-untyped-call]
