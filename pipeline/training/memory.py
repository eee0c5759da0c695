"""How many images a batch has: so many as are asked for, all of a split, or as many as memory holds."""

from __future__ import annotations

import copy
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import machine
from pipeline.data.loader import Loader
from pipeline.data.store import Split
from pipeline.errors import PipelineError
from pipeline.training.seeding import Compute

SHARE = 0.5  # of memory that weights, gradients and activations may fill; libraries and the data take the rest
STATES = 5  # copies of the weights: themselves, gradients, two moments of the optimiser, an average
OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")  # cuBLAS, cuDNN


def batch_size(
    asked: int | str, model: Any, split: Split, image_size: tuple[int, int], compute: Compute, *, num: int, name: str
) -> int:
    """The number that `training.batch_size` means.

    `all` is the whole split. `auto` is the largest power of two, at most the split, whose activations fit into SHARE of
    the memory, next to STATES copies of the weights. What an image takes is the difference between what autograd keeps
    of four and of two images, so that one machine always comes to the same number. On a GPU a step of that size is
    tried as well, and the number halved until one succeeds.

    Args:
        asked: `training.batch_size`.
        model: on the CPU; stays as it is.
        split: the images to train on.
        image_size: height and width of batches.
        compute: device and precision.
        num: of processes, which share the batch; on a GPU each has its own memory.
        name: of the run, for messages.

    Raises:
        PipelineError: not even one image fits, or not the four that are tried.
    """
    if asked == "all":
        return len(split)
    if asked != "auto":
        return int(asked)
    try:
        return _largest(model, split, image_size, compute, num, name)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    height, width = image_size
    raise PipelineError(
        f"{name}: out of memory on {compute.device} with four images of {height}x{width}, by which batch_size auto is "
        "found; fix: write a training.batch_size, lower training.image_size, or a smaller model"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the machine had no more memory to give."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _largest(model: Any, split: Split, image_size: tuple[int, int], compute: Compute, num: int, name: str) -> int:
    trial = _Trial(model, split, image_size, compute)
    two, four = trial.kept(2), trial.kept(4)
    per_image = max(1, (four - two) // 2)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    memory = total_memory(compute.device)
    left = int(SHARE * memory) - STATES * weights - max(0, two - 2 * per_image)
    most = min(len(split), left // per_image * (num if compute.device.type == "cuda" else 1))
    if most >= 1:
        size = 2 ** (most.bit_length() - 1)
        while size >= 1:
            if compute.device.type != "cuda" or trial.succeeds(-(-size // num)):
                print(
                    f"{name}: batch_size auto is {size} ({per_image / 1e6:.2g} MB an image, {memory / 1e9:.3g} GB)",
                    file=sys.stderr,
                )
                return size
            size //= 2
    raise PipelineError(
        f"{name}: not one image of {image_size[0]}x{image_size[1]} fits into the memory of {compute.device} "
        f"({memory / 1e9:.3g} GB); fix: lower training.image_size, or a smaller model"
    )


def total_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of the machine or container."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return machine.memory()


class _Trial:
    """Losses and gradients of a copy of a model, on the first images of a split."""

    def __init__(self, model: Any, split: Split, image_size: tuple[int, int], compute: Compute) -> None:
        self.model = copy.deepcopy(model).to(compute.device, memory_format=torch.channels_last).train()
        self.split, self.image_size, self.compute = split, image_size, compute

    def _loss(self, num: int) -> Tensor:
        positions = np.arange(num) % len(self.split)
        (batch,) = Loader(self.split, num, self.image_size, pin_memory=False).batches(positions)
        with self.compute.autocast():
            return self.model.loss(batch.to(self.compute.device))["loss"]  # type: ignore[no-any-return]

    def kept(self, num: int) -> int:
        """Bytes that the forward pass of so many images keeps for the backward pass, besides the weights."""
        own = {tensor.untyped_storage().data_ptr() for tensor in self.model.state_dict().values()}
        kept: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._loss(num)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())

    def succeeds(self, num: int) -> bool:
        """Whether the memory holds a step on so many images."""
        try:
            self._loss(num).backward()
            return True
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
