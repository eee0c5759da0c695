"""Seeds, threads and devices: the same numbers in every run on one machine."""

from __future__ import annotations

import hashlib
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ParamsError

if TYPE_CHECKING:
    import torch


def derive(*parts: int | str) -> int:
    """A seed in 0..2**63 of its own for every combination of parts, such as (seed, epoch, index)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Compute:
    """Where and how precisely a stage computes.

    Attributes:
        device: a torch device.
        bfloat16: whether forward passes run under bfloat16 autocast.
    """

    device: torch.device
    bfloat16: bool

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()


def is_main() -> bool:
    """Whether this process writes what a stage writes: of several that train together only the first."""
    return os.environ.get("RANK", "0") == "0"


def set_up(defaults: Any) -> Compute:
    """Fixes torch's threads, algorithms and seed, and chooses the device.

    Args:
        defaults: the `defaults` section of params.yaml.

    Raises:
        ParamsError: a GPU is asked for by name and there is none.
    """
    import torch

    torch.set_num_threads(defaults.threads)
    torch.manual_seed(defaults.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # a debugging aid that costs 5% of a training step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    device = device_of(defaults)
    is_cuda = device.type == "cuda"
    # fused attention adds up gradients in any order, even of deterministic algorithms, unless others are errors
    cuda = torch.backends.cuda
    for enable in (cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp):
        enable(not is_cuda)
    if is_cuda:
        with warnings.catch_warnings():  # torch 2.9 asks for names whose use breaks what still reads the old ones
            warnings.simplefilter("ignore")
            torch.backends.cudnn.allow_tf32 = False  # whose convolutions have ten bits where float32 has 23
    bfloat16 = defaults.precision == "bfloat16" or (defaults.precision == "auto" and is_cuda)
    return Compute(device, bfloat16)


def device_of(defaults: Any) -> torch.device:
    """The device that `defaults.device` means on this machine and in this process.

    Raises:
        ParamsError: a GPU is asked for by name and there is none.
    """
    import torch

    name = defaults.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # each process of a launch has a GPU of its own
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParamsError(
            f"params.yaml defaults.device: {name!r} is asked for, this machine has {torch.cuda.device_count()} GPUs; "
            "fix: device: auto"
        )
    return device
