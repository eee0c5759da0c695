"""SE-ResNet (Hu et al. 2018, table 1 and figure 3): a residual network that weighs its channels anew for each image.

It shows attention over channels at almost no cost: the mean of each map goes through two small dense layers whose
outputs in 0..1 scale the maps (squeeze and excitation, section 3). A convolution sees its neighbourhood only; this is
how a block knows what the image as a whole holds. 28,088,024 parameters with `block: bottleneck`, [3, 4, 6, 3] layers
and 1,000 classes, 2.5 million of them in the gates.
"""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.models import layers as parts
from pipeline.structures import DatasetInfo

GROUPS = 4


class Gate(nn.Module):
    """Squeeze and excitation: each map times a factor in 0..1 that depends on the means of all maps (equations 2 to 4).

    Args:
        channels: C.
        reduction: C over the width between the two dense layers.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, max(1, channels // reduction), 1)
        self.activation = nn.ReLU()
        self.expand = nn.Conv2d(max(1, channels // reduction), channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return maps * torch.sigmoid(self.expand(self.activation(self.reduce(self.squeeze(maps)))))


class Block(nn.Module):
    """A residual block whose branch ends in a gate.

    Args:
        in_channels: C.
        branch: to [B, D, h, w], without the activation behind the sum.
        channels: D.
        stride: of the branch.
        reduction: of the gate.
        norm, activation: kinds.
    """

    def __init__(
        self,
        in_channels: int,
        branch: nn.Module,
        channels: int,
        stride: int,
        reduction: int,
        norm: str,
        activation: str,
    ) -> None:
        super().__init__()
        self.branch, self.gate = branch, Gate(channels, reduction)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            self.shortcut = parts.convolution(
                in_channels, channels, 1, stride=stride, norm_kind=norm, activation_kind=None
            )
        self.activation = parts.elementwise(activation)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, h, w]."""
        return self.activation(self.shortcut(maps) + self.gate(self.branch(maps)))


def build(
    info: DatasetInfo,
    *,
    layers: list[int] = [2, 2, 2, 2],  # noqa: B006
    channels: list[int] = [64, 128, 256, 512],  # noqa: B006
    block: Literal["basic", "bottleneck"] = "basic",
    reduction: int = 16,
    small_stem: bool = False,
    dropout: float = 0.0,
    norm: parts.NormKind = "batch",
    activation: parts.ActivationKind = "relu",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        layers: blocks in each of the four groups.
        channels: of each group, four times as many behind bottlenecks; the stem has the first of them.
        block: two 3x3 convolutions, or 1x1, 3x3 and 1x1.
        reduction: channels over the width inside a gate (section 6.1: 16).
        small_stem: for images of about 32 pixels or less: one 3x3 convolution, no pooling.
        dropout: before the last layer.
        norm: after each convolution.
        activation: after each norm, and after each sum; gates have relu.

    Raises:
        ParamsError: not four groups, or a number below 1.
    """
    parts.check_numbers(layers, GROUPS, "classification/se_resnet layers")
    parts.check_numbers(channels, GROUPS, "classification/se_resnet channels")
    parts.check_numbers([reduction], 1, "classification/se_resnet reduction")
    convolution = partial(parts.convolution, norm_kind=norm)
    before = channels[0]
    stem = parts.stem(info.channels, before, small=small_stem, norm_kind=norm, activation_kind=activation)
    blocks = []
    for group, (num, width) in enumerate(zip(layers, channels, strict=True)):
        for index in range(num):
            stride = 2 if group and not index else 1
            if block == "basic":
                out = width
                branch = nn.Sequential(
                    convolution(before, width, 3, stride=stride, activation_kind=activation),
                    convolution(width, out, 3, activation_kind=None),
                )
            else:
                out = 4 * width
                branch = nn.Sequential(
                    convolution(before, width, 1, activation_kind=activation),
                    convolution(width, width, 3, stride=stride, activation_kind=activation),
                    convolution(width, out, 1, activation_kind=None),
                )
            blocks.append(Block(before, branch, out, stride, reduction, norm, activation))
            before = out
    normalise = parts.Normalise(info.mean, info.std)
    return nn.Sequential(normalise, stem, *blocks, parts.classifier(before, len(info.classes), dropout))
