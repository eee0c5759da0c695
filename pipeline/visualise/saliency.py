"""Saliency of pixels: how much the score of a class moves with each of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def gradient(network: nn.Module, images: Tensor, classes: Tensor) -> np.ndarray:
    """The largest absolute gradient over channels (Simonyan et al. 2014, section 3.1).

    Args:
        network: [B, C, H, W] -> logits [B, K].
        images: [B, C, H, W].
        classes: [B], the class whose score is explained.

    Returns:
        [B, H, W] in 0..1, each map divided by its 99th percentile and cut there.
    """
    images = images.detach().requires_grad_(True)
    score = network(images).gather(1, classes[:, None]).sum()
    (gradients,) = torch.autograd.grad(score, images)
    heat = gradients.abs().amax(1).cpu().numpy()
    peak = np.percentile(heat, 99, axis=(1, 2), keepdims=True)
    return np.clip(heat / np.maximum(peak, 1e-12), 0, 1)


METHODS: dict[str, Any] = {"gradient": gradient}
