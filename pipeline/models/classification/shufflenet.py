"""ShuffleNet (Zhang et al. 2018, table 1 for three groups): grouped 1x1 convolutions whose groups are mixed for free.

It shows what to do when the 1x1 convolutions of a separable network cost most: split them into groups too, and, so that
groups do not stay strangers, let the next layer's groups take one map in turn from each (figure 1c). The shuffle has no
weights and no multiplications; `shuffle: false` is the foil (their table 3).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models import layers as parts
from pipeline.structures import DatasetInfo

STAGES = 3
BOTTLENECK = 4  # section 3.2: the width inside a unit is a quarter of its output


class Shuffle(nn.Module):
    """The maps [g, n] of g groups in the order [n, g], so that neighbours come from different groups (section 3.1)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return maps.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def extra_repr(self) -> str:
        """Shown when the network is printed."""
        return f"groups={self.groups}"


class Unit(nn.Module):
    """1x1 in groups, shuffle, 3x3 of each map, 1x1 in groups; added to what came in, or beside its pooled form.

    Args:
        in_channels: C.
        channels: of the result.
        stride: 2 halves the maps and puts old and new side by side (figure 2c), 1 adds them (figure 2b).
        groups: of the second 1x1 convolution.
        first_groups: of the first.
        shuffle: whether groups mix.
        convolution: makes one of the wanted norm.
        activation: kind.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        groups: int,
        first_groups: int,
        shuffle: bool,
        convolution: Any,
        activation: str,
    ) -> None:
        super().__init__()
        width = max(1, channels // BOTTLENECK)
        new = channels - in_channels if stride > 1 else channels
        self.branch = nn.Sequential(
            convolution(in_channels, width, 1, groups=first_groups, activation_kind=activation),
            Shuffle(groups) if shuffle else nn.Identity(),
            convolution(width, width, 3, stride=stride, groups=width, activation_kind=None),
            convolution(width, new, 1, groups=groups, activation_kind=None),
        )
        self.pool = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
        self.activation = parts.elementwise(activation)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, h, w]."""
        new = self.branch(maps)
        return self.activation(maps + new if self.pool is None else torch.cat([self.pool(maps), new], 1))


def build(
    info: DatasetInfo,
    *,
    layers: list[int] = [4, 8, 4],  # noqa: B006
    channels: list[int] = [240, 480, 960],  # noqa: B006
    stem: int = 24,
    groups: int = 3,
    shuffle: bool = True,
    small_stem: bool = False,
    dropout: float = 0.0,
    norm: parts.NormKind = "batch",
    activation: parts.ActivationKind = "relu",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        layers: units of each of the three stages.
        channels: of each stage.
        stem: channels of the first convolution; fewer than those of the first stage.
        groups: of the 1x1 convolutions; a quarter of each stage's channels must fall into them.
        shuffle: false: each group sees itself alone within a stage.
        small_stem: for images of about 32 pixels or less: the stem makes no steps and no pool follows.
        dropout: before the last layer.
        norm: after each convolution.
        activation: after the first convolution of a unit, and at its end.

    Raises:
        ParamsError: not three stages, channels that do not grow, or do not fall into the groups.
    """
    parts.check_numbers(layers, STAGES, "classification/shufflenet layers")
    parts.check_numbers(channels, STAGES, "classification/shufflenet channels")
    before = stem
    first = parts.convolution(
        info.channels, stem, 3, stride=1 if small_stem else 2, norm_kind=norm, activation_kind=activation
    )
    modules: list[nn.Module] = [first] if small_stem else [first, nn.MaxPool2d(3, 2, padding=1)]
    convolution = partial(parts.convolution, norm_kind=norm)
    for stage, (num, width) in enumerate(zip(layers, channels, strict=True)):
        parts.check_numbers(
            [width - before], 1, f"classification/shufflenet channels of stage {stage + 1} less those before"
        )
        for unit in range(num):
            first_groups = groups if stage or unit else 1  # the stem's maps are few (section 3.3)
            stride = 1 if unit else 2
            modules.append(Unit(before, width, stride, groups, first_groups, shuffle, convolution, activation))
            before = width
    normalise = parts.Normalise(info.mean, info.std)
    return nn.Sequential(normalise, *modules, parts.classifier(before, len(info.classes), dropout))
