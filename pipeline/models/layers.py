"""Layers that several architectures share: normalisation, activation and stochastic depth by name, and folding."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, fx, nn

from pipeline.errors import ParamsError, PipelineError, did_you_mean

NormKind = Literal["batch", "layer", "instance", "group", "none"]
ActivationKind = Literal["relu", "leaky_relu", "elu", "selu", "gelu", "softplus", "sigmoid", "tanh", "maxout"]
GROUPS = 32  # Wu and He 2018, table 3
MAXOUT_PIECES = 2

Folds = TypeVar("Folds", nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


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


def norm(kind: str, channels: int, dimensions: int = 2) -> nn.Module:
    """A normalisation layer for [B, C, ...], with a scale and a shift per channel.

    What shares one mean and variance: `batch` all images and places of a channel (Ioffe and Szegedy 2015; running
    averages of them in evaluation), `layer` all of one image (Ba et al. 2016, equation 3), `instance` the places of one
    channel of one image (Ulyanov et al. 2016), `group` those of up to 32 groups of channels of one image (Wu and He
    2018); `none` is the identity.

    Args:
        kind: one of NormKind.
        channels: C.
        dimensions: of each channel: 2 for maps [B, C, H, W], 1 for [B, C, T], 0 for vectors [B, C].

    Raises:
        ParamsError: no such kind, or `instance` of vectors, whose channels have nothing to take a variance over.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "instance":
        if dimensions == 0:
            raise ParamsError("norm 'instance': a channel of a vector is one number; fix: batch, layer, group or none")
        return nn.GroupNorm(channels, channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    if kind == "none":
        return nn.Identity()
    raise ParamsError(f"norm {kind!r}: unknown; {did_you_mean(kind, get_args(NormKind))}")


class Maxout(nn.Module):
    """The largest of each `MAXOUT_PIECES` neighbouring channels (Goodfellow et al. 2013, section 3)."""

    def forward(self, values: Tensor) -> Tensor:
        """[B, pieces * C, ...] -> [B, C, ...]."""
        return values.unflatten(1, (-1, MAXOUT_PIECES)).amax(2)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.01),  # Maas et al. 2013, equation 2
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "maxout": Maxout,
}


def activation(name: str) -> nn.Module:
    """A non-linearity by its name in ActivationKind.

    The layer before it must give `pieces(name)` channels for each that is wanted.

    Raises:
        ParamsError: no such name.
    """
    if name not in ACTIVATIONS:
        raise ParamsError(f"activation {name!r}: unknown; {did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def pieces(name: str) -> int:
    """How many channels an activation takes for each that it gives: 2 for maxout, else 1."""
    return MAXOUT_PIECES if name == "maxout" else 1


class StochasticDepth(nn.Module):
    """Leaves a residual branch out for some images of a batch while training (Huang et al. 2016, equation 2).

    What stays is divided by its chance to stay, so evaluation needs no factor (the paper has it there, equation 5).

    Args:
        rate: chance of an image to go without the branch, 0 up to 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """[B, ...], the branch before it is added."""
        if not self.training or self.rate == 0:
            return branch
        shape = (len(branch), *(1,) * (branch.ndim - 1))
        kept = torch.rand(shape, device=branch.device) >= self.rate
        return branch * kept.to(branch.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        """Shown when the network is printed."""
        return f"rate={self.rate}"


def depth_rates(last: float, num: int) -> list[float]:
    """The linear rule for the chances of `num` blocks to be left out: l / L of the last one's (Huang et al., eq. 4)."""
    return [last * (block + 1) / num for block in range(num)]


@torch.no_grad()
def fold(layer: Folds, norm: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) -> Folds:
    """One layer that gives what a layer and the batch norm after it give in evaluation.

    With s = scale / sqrt(variance + eps) of each output channel: weight' = s weight, bias' = s (bias - mean) + shift.

    Args:
        layer: a convolution or a linear layer; left as it is.
        norm: with running statistics.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    shift = torch.zeros_like(norm.running_mean)
    if norm.affine:
        scale, shift = scale * norm.weight, norm.bias
    bias = torch.zeros_like(norm.running_mean) if layer.bias is None else layer.bias
    folded = copy.deepcopy(layer)
    folded.weight = nn.Parameter(layer.weight * scale.view(-1, *(1,) * (layer.weight.ndim - 1)))
    folded.bias = nn.Parameter((bias - norm.running_mean) * scale + shift)
    return folded


def folded(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch norms stand inside the layers before them, where nothing else reads these.

    Args:
        module: left as it is.

    Raises:
        PipelineError: its forward pass depends on values, so that which layer follows which cannot be read off it.
    """
    network = copy.deepcopy(module).eval()
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception as error:  # whatever the forward pass says of being given no values
        kind = type(module).__name__
        raise PipelineError(
            f"{kind}: its layers cannot be followed ({' '.join(str(error).split())[:120]}); fix: fold each pair"
        ) from error
    modules: dict[str, Any] = dict(network.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        if calls.count(node.target) > 1 or calls.count(before.target) > 1:
            continue
        layer, after = modules[str(before.target)], modules[str(node.target)]
        is_norm = isinstance(after, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and after.track_running_stats
        if is_norm and isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            network.set_submodule(str(before.target), fold(layer, after))  # type: ignore[type-var]
            network.set_submodule(str(node.target), nn.Identity())
    return network
