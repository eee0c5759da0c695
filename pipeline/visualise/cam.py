"""Class activation maps: which places of a network's last maps speak for a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ParamsError, did_you_mean


def last_maps(network: nn.Module) -> str:
    """The name of the module whose output is a timm network's last [B, D, h, w] maps."""
    for name, module in network.named_modules():
        if hasattr(module, "feature_info"):
            return ".".join(part for part in (name, module.feature_info[-1]["module"]) if part)
    raise ParamsError("grad_cam: this network does not say which layer is its last map; fix: options.layer")


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor, *, layer: str = "") -> np.ndarray:
    """Grad-CAM (Selvaraju et al. 2017, equations 1 and 2).

    Args:
        network: [B, C, H, W] -> logits [B, K].
        images: [B, C, H, W].
        classes: [B], the class that each map explains.
        layer: name of the module to look at; the last maps when empty.

    Returns:
        [B, H, W] in 0..1, each map divided by its maximum; zero where nothing speaks for the class.
    """
    layer = layer or last_maps(network)
    modules = dict(network.named_modules())
    if layer not in modules:
        raise ParamsError(f"options.layer {layer!r}: the network has no such module; {did_you_mean(layer, modules)}")
    kept: list[Tensor] = []
    handle = modules[layer].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        logits = network(images.detach().requires_grad_(True))
    finally:
        handle.remove()
    maps = kept[0]
    (gradients,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), maps)
    weights = gradients.mean((2, 3), keepdim=True)
    heat = F.relu((weights * maps).sum(1, keepdim=True)).detach()
    heat = F.interpolate(heat, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return (heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)).cpu().numpy()


METHODS: dict[str, Any] = {"grad_cam": grad_cam}
