"""GoogLeNet (Szegedy et al. 2015, table 1), which won ImageNet in 2014 with 7 million parameters.

It shows two ideas. An inception module looks with 1x1, 3x3, 5x5 and a pool at once and lets the next layer choose; 1x1
convolutions before the large ones keep that cheap (figure 2b). And two small classifiers on inner maps, whose losses
count 0.3 while training, bring gradients to the lower layers (section 5); they are thrown away afterwards.
Batch normalisation is not the paper's, but its successor's (Ioffe and Szegedy 2015); `norm: none` is the paper's.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models import layers
from pipeline.structures import DatasetInfo

# table 1: channels of #1x1; #3x3 reduce, #3x3; #5x5 reduce, #5x5; pool proj
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = ("3b", "4e")  # a pool follows
SIDE_BRANCHES = ("4a", "4d")  # an auxiliary classifier looks at it


class Inception(nn.Module):
    """Four looks at the same maps, side by side in the channels (figure 2b).

    Args:
        channels: C.
        widths: a row of MODULES; the result has the first, third, fifth and sixth of them together.
        convolution: makes one from in, out and kernel.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], convolution: Any) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.one = convolution(channels, one, 1)
        self.three = nn.Sequential(convolution(channels, reduce3, 1), convolution(reduce3, three, 3))
        self.five = nn.Sequential(convolution(channels, reduce5, 1), convolution(reduce5, five, 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), convolution(channels, pooled, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, one + three + five + pooled, H, W]."""
        return torch.cat([self.one(maps), self.three(maps), self.five(maps), self.pooled(maps)], 1)


class GoogLeNet(nn.Module):
    """The modules in a row, a classifier behind them, and auxiliary ones beside.

    Args:
        stem: images to the maps that 3a sees.
        modules: inception modules, with pools between them, by name.
        classifier: of the last maps.
        auxiliaries: of the maps of the modules that they are named after.
        weight: of an auxiliary classifier's loss.
    """

    def __init__(
        self, stem: nn.Module, modules: nn.ModuleDict, classifier: nn.Module, auxiliaries: nn.ModuleDict, weight: float
    ) -> None:
        super().__init__()
        self.stem, self.inception, self.classifier, self.auxiliaries = stem, modules, classifier, auxiliaries
        self.weight = weight

    def forward(self, images: Tensor) -> Tensor | list[tuple[float, Tensor]]:
        """[B, C, H, W] -> logits [B, K]; while training also the auxiliary ones, each with the weight of its loss."""
        maps = self.stem(images)
        beside = []
        for name, module in self.inception.items():
            maps = module(maps)
            if self.training and name in self.auxiliaries:
                beside.append((self.weight, self.auxiliaries[name](maps)))
        logits = self.classifier(maps)
        return [(1.0, logits), *beside] if beside else logits


def build(
    info: DatasetInfo,
    *,
    width: float = 1.0,
    auxiliary_weight: float = 0.3,
    norm: layers.NormKind = "batch",
    activation: layers.ActivationKind = "relu",
    dropout: float = 0.4,
    small_stem: bool = False,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        width: factor of all channels.
        auxiliary_weight: of the loss of each auxiliary classifier; 0: there are none.
        norm: after each convolution.
        activation: after each layer but the last.
        dropout: before the last layer.
        small_stem: for images of about 32 pixels or less: one 3x3 convolution, no pooling before 3a.

    Raises:
        ParamsError: the width or the weight is out of range.
    """
    if width <= 0 or auxiliary_weight < 0:
        raise ParamsError(
            f"classification/googlenet: width {width} and auxiliary_weight {auxiliary_weight}; fix: above 0"
        )

    def scaled(channels: int) -> int:
        return max(1, round(channels * width))

    convolution = partial(layers.convolution, norm_kind=norm, activation_kind=activation)
    pool = partial(nn.MaxPool2d, 3, stride=2, padding=1)  # halves like the paper's, at odd sides too
    channels = scaled(192)
    stem: nn.Module
    if small_stem:
        stem = convolution(info.channels, channels, 3)
    else:
        narrow = scaled(64)
        stem = nn.Sequential(
            convolution(info.channels, narrow, 7, stride=2),
            pool(),
            convolution(narrow, narrow, 1),
            convolution(narrow, channels, 3),
            pool(),
        )
    modules, auxiliaries = nn.ModuleDict(), nn.ModuleDict()
    for name, widths in MODULES.items():
        inception = Inception(channels, tuple(scaled(each) for each in widths), convolution)
        channels = sum(scaled(widths[i]) for i in (0, 2, 4, 5))
        modules[name] = nn.Sequential(inception, pool()) if name in POOLED else inception
        if auxiliary_weight and name in SIDE_BRANCHES:
            narrow, hidden = scaled(128), scaled(1024)
            auxiliaries[name] = nn.Sequential(
                nn.AdaptiveAvgPool2d(4),
                convolution(channels, narrow, 1),
                nn.Flatten(),
                nn.Linear(16 * narrow, hidden * layers.pieces(activation)),
                layers.activation(activation),
                nn.Dropout(0.7),  # section 5
                nn.Linear(hidden, len(info.classes)),
            )
    classifier = layers.classifier(channels, len(info.classes), dropout)
    network = GoogLeNet(stem, modules, classifier, auxiliaries, auxiliary_weight)
    return nn.Sequential(layers.Normalise(info.mean, info.std), network)
