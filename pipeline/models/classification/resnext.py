"""ResNeXt (Xie et al. 2017, table 1, 32x4d): a residual network whose 3x3 convolutions are split into groups.

It shows a third way to spend weights besides depth and width: many narrow paths side by side (`cardinality`), blind to
each other. A convolution in g groups has g times fewer weights, so at the same cost the maps can be wider, and 32 paths
of 4 channels beat one of 64 (their table 3). 25,028,904 parameters without options at 1,000 classes.
"""

from torch import Tensor, nn

from pipeline.models import layers as parts
from pipeline.structures import DatasetInfo

GROUPS = 4
EXPANSION = 4
"""Channels behind a block over those of its group."""


class Block(nn.Module):
    """1x1 to the width of all paths, 3x3 within each path, 1x1 back, added to what came in (figure 3c).

    Args:
        in_channels: C.
        channels: a quarter of the result's.
        width: of all paths together.
        cardinality: the number of paths.
        stride: of the 3x3.
        norm, activation: kinds.
    """

    def __init__(
        self, in_channels: int, channels: int, width: int, cardinality: int, stride: int, norm: str, activation: str
    ) -> None:
        super().__init__()
        out = EXPANSION * channels
        self.narrow = parts.convolution(in_channels, width, 1, norm_kind=norm, activation_kind=activation)
        self.paths = parts.convolution(
            width, width, 3, stride=stride, groups=cardinality, norm_kind=norm, activation_kind=activation
        )
        self.wide = parts.convolution(width, out, 1, norm_kind=norm, activation_kind=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out:
            self.shortcut = parts.convolution(in_channels, out, 1, stride=stride, norm_kind=norm, activation_kind=None)
        self.activation = parts.elementwise(activation)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 4 channels, h, w]."""
        return self.activation(self.shortcut(maps) + self.wide(self.paths(self.narrow(maps))))


def build(
    info: DatasetInfo,
    *,
    layers: list[int] = [3, 4, 6, 3],  # noqa: B006
    channels: list[int] = [64, 128, 256, 512],  # noqa: B006
    cardinality: int = 32,
    path_width: int = 4,
    small_stem: bool = False,
    dropout: float = 0.0,
    norm: parts.NormKind = "batch",
    activation: parts.ActivationKind = "relu",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        layers: blocks in each of the four groups.
        channels: of each group, a quarter of those behind its blocks; the stem has the first of them.
        cardinality: paths of a block; 1 is a ResNet.
        path_width: channels of a path in the first group; in the others it grows as `channels` does.
        small_stem: for images of about 32 pixels or less: one 3x3 convolution, no pooling.
        dropout: before the last layer.
        norm: after each convolution.
        activation: after each norm, and after each sum.

    Raises:
        ParamsError: not four groups, or a number below 1.
    """
    parts.check_numbers(layers, GROUPS, "classification/resnext layers")
    parts.check_numbers(channels, GROUPS, "classification/resnext channels")
    parts.check_numbers([cardinality, path_width], 2, "classification/resnext cardinality and path_width")
    before = channels[0]
    stem = parts.stem(info.channels, before, small=small_stem, norm_kind=norm, activation_kind=activation)
    blocks = []
    for group, (num, width) in enumerate(zip(layers, channels, strict=True)):
        paths = cardinality * (width * path_width // channels[0])
        for block in range(num):
            stride = 2 if group and not block else 1
            blocks.append(Block(before, width, paths, cardinality, stride, norm, activation))
            before = EXPANSION * width
    normalise = parts.Normalise(info.mean, info.std)
    return nn.Sequential(normalise, stem, *blocks, parts.classifier(before, len(info.classes), dropout))
