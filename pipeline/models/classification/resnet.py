"""Residual network of basic blocks (He et al. 2016, table 1), from timm.

The small stem is the paper's for CIFAR (section 4.2): one 3x3 convolution, no pooling.
"""

from typing import Any

from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.layers import Normalise
from pipeline.structures import DatasetInfo

GROUPS = 4


def build(
    info: DatasetInfo,
    *,
    layers: list[int] = [2, 2, 2, 2],  # noqa: B006
    channels: list[int] = [64, 128, 256, 512],  # noqa: B006
    small_stem: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        layers: blocks in each of the four groups; [2, 2, 2, 2] is ResNet-18.
        channels: width of each group; the stem has 64.
        small_stem: for images of about 32 pixels or less.
        dropout: before the last layer.

    Raises:
        ParamsError: not four groups.
    """
    from timm.models.resnet import BasicBlock, ResNet

    for name, values in (("layers", layers), ("channels", channels)):
        if len(values) != GROUPS or min(values) < 1:
            raise ParamsError(f"classification/resnet {name}: {values}; a ResNet has {GROUPS} groups, each at least 1")
    network: Any = ResNet(
        BasicBlock,  # type: ignore[arg-type]
        tuple(layers),
        num_classes=len(info.classes),
        in_chans=info.channels,
        channels=tuple(channels),
        drop_rate=dropout,
    )
    if small_stem:
        network.conv1 = nn.Conv2d(info.channels, network.conv1.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return nn.Sequential(Normalise(info.mean, info.std), network)
