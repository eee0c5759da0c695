"""DenseNet (Huang et al. 2017, table 1): each layer sees the maps of all layers before it in its block.

It shows the other way to keep a path through depth: where a residual block adds, a dense layer puts its few new maps
(`growth`) beside all old ones, so nothing is overwritten and features are used again. Layers may then be narrow:
DenseNet-121 has 7,978,856 parameters where ResNet-50 has 25.6 million. Norm and activation stand before each
convolution (section 3), with a 1x1 to 4 growth before each 3x3 (DenseNet-B) and half the maps kept after a
block (DenseNet-C).
"""

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models import layers as parts
from pipeline.structures import DatasetInfo

BOTTLENECK = 4  # section 3, "we let each 1x1 convolution produce 4k feature-maps"


def _active(channels: int, out: int, kernel: int, norm: str, activation: str) -> nn.Sequential:
    """Norm, activation, convolution."""
    layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(parts.norm(norm, channels), parts.elementwise(activation), layer)


class Dense(nn.Module):
    """New maps beside those that came in.

    Args:
        channels: C.
        growth: of new maps.
        dropout: of the new maps.
        norm, activation: kinds.
    """

    def __init__(self, channels: int, growth: int, dropout: float, norm: str, activation: str) -> None:
        super().__init__()
        width = BOTTLENECK * growth
        self.narrow = _active(channels, width, 1, norm, activation)
        self.grow = _active(width, growth, 3, norm, activation)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C + growth, H, W], the first C as they came."""
        return torch.cat([maps, self.dropout(self.grow(self.narrow(maps)))], 1)


def build(
    info: DatasetInfo,
    *,
    layers: list[int] = [6, 12, 24, 16],  # noqa: B006
    growth: int = 32,
    compression: float = 0.5,
    small_stem: bool = False,
    dropout: float = 0.0,
    norm: parts.NormKind = "batch",
    activation: parts.ActivationKind = "relu",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        layers: of each dense block; [6, 12, 32, 32] is DenseNet-169.
        growth: maps that each layer adds; the stem has twice as many.
        compression: share of the maps that a transition between two blocks keeps, in 0..1.
        small_stem: for images of about 32 pixels or less: one 3x3 convolution, no pooling.
        dropout: of each layer's new maps (section 4.2: 0.2 without augmentation).
        norm, activation: before each convolution.

    Raises:
        ParamsError: no blocks, or a number out of range.
        PipelineError: images that the transitions halve to nothing.
    """
    parts.check_numbers([*layers, growth], max(2, len(layers) + 1), "classification/densenet layers and growth")
    if not 0 < compression <= 1:
        raise ParamsError(f"classification/densenet compression: {compression}; fix: a share above 0, up to 1")
    smallest = 2 ** (len(layers) - 1) * (1 if small_stem else 4)
    parts.at_least(smallest, info.image_size, "classification/densenet" + " without small_stem" * (not small_stem))
    channels = 2 * growth
    stem = parts.stem(info.channels, channels, small=small_stem, norm_kind=norm, activation_kind=activation)
    modules: list[nn.Module] = [stem]
    for block, num in enumerate(layers):
        if block:
            kept = max(1, int(channels * compression))
            modules.append(_active(channels, kept, 1, norm, activation).append(nn.AvgPool2d(2)))
            channels = kept
        for _ in range(num):
            modules.append(Dense(channels, growth, dropout, norm, activation))
            channels += growth
    modules.append(nn.Sequential(parts.norm(norm, channels), parts.elementwise(activation)))
    normalise = parts.Normalise(info.mean, info.std)
    return nn.Sequential(normalise, *modules, parts.classifier(channels, len(info.classes)))
