"""Layers that several architectures share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalise(nn.Module):
    """(images - mean) / std per channel; grey images become RGB when three channels are wanted.

    Args:
        mean, std: C values for images in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).clamp_min(1e-6).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """[B, C or 1, H, W] in 0..1 -> [B, C, H, W]."""
        return (images.expand(-1, self.mean.shape[1], -1, -1) - self.mean) / self.std
