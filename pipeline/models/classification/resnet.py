"""Residual network (He et al. 2016, table 1), from timm, with the blocks that its papers compare.

It shows why very deep networks can be trained: each block adds to what it is given, so the gradient has a way past all
weights. `plain` is the foil, the same convolutions without that way (figure 2): from about 20 layers on, more of them
make even its training error worse (figure 4). `preactivation` (He et al. 2016b, figure 1b) clears the way of the
rectifiers behind the sums as well. The small stem is the paper's for CIFAR (section 4.2): one 3x3 convolution, no
pooling.
"""

from typing import Any, Literal, cast

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models import layers as parts
from pipeline.structures import DatasetInfo

GROUPS = 4


class Plain(BasicBlock):
    """Two convolutions and nothing around them: `basic` without its shortcut."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.downsample = None

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, h, w]."""
        maps = self.act1(self.bn1(self.conv1(maps)))
        return self.act2(self.bn2(self.conv2(maps)))


class PreActivation(nn.Module):
    """Norm and activation before each convolution, nothing behind the sum (He et al. 2016b, figure 4e).

    Args:
        in_channels, channels: before and after.
        stride: of the first convolution.
        downsample: timm's shortcut where the shape changes; its convolution is used.
        act_layer, norm_layer: make an activation, and a norm of some channels.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        downsample: nn.Sequential | None = None,
        *,
        act_layer: Any,
        norm_layer: Any,
        **_others: Any,
    ) -> None:
        super().__init__()
        self.bn1 = norm_layer(in_channels)
        self.act1 = act_layer()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = norm_layer(channels)
        self.act2 = act_layer()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.downsample = None if downsample is None else downsample[0]
        self.drop_path: nn.Module | None = None

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, h, w]."""
        active = self.act1(self.bn1(maps))
        shortcut = maps if self.downsample is None else self.downsample(active)
        branch = self.conv2(self.act2(self.bn2(self.conv1(active))))
        return shortcut + (branch if self.drop_path is None else self.drop_path(branch))


BLOCKS: dict[str, Any] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "preactivation": PreActivation,
    "plain": Plain,
}


def build(
    info: DatasetInfo,
    *,
    layers: list[int] = [2, 2, 2, 2],  # noqa: B006
    channels: list[int] = [64, 128, 256, 512],  # noqa: B006
    small_stem: bool = False,
    dropout: float = 0.0,
    block: Literal["basic", "bottleneck", "preactivation", "plain"] = "basic",
    zero_init: bool = True,
    stochastic_depth: float = 0.0,
    norm: parts.NormKind = "batch",
    activation: parts.ActivationKind = "relu",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        layers: blocks in each of the four groups; [2, 2, 2, 2] is ResNet-18, [3, 4, 6, 3] ResNet-34, and with
            `block: bottleneck` ResNet-50.
        channels: width of each group, four times as much behind bottlenecks; the stem has 64.
        small_stem: for images of about 32 pixels or less.
        dropout: before the last layer.
        block: two 3x3 convolutions, or 1x1, 3x3 and 1x1, and how they are added.
        zero_init: each block starts as the identity: the scale of its last norm, or, where none follows the last
            convolution, that convolution is zero (Goyal et al. 2017, section 5.1).
        stochastic_depth: chance of the last block to be left out in training, and of earlier ones linearly less.
        norm: after each convolution; before it in `preactivation`.
        activation: after each norm, and after each sum but in `preactivation`.

    Raises:
        ParamsError: not four groups, an activation that halves the channels, or stochastic depth of a plain network.
    """
    parts.check_numbers(layers, GROUPS, "classification/resnet layers")
    parts.check_numbers(channels, GROUPS, "classification/resnet channels")
    if block == "plain" and stochastic_depth:
        raise ParamsError("classification/resnet stochastic_depth: a plain block cannot be left out; fix: set it to 0")
    parts.elementwise(activation)
    network: Any = ResNet(
        BLOCKS[block],
        tuple(layers),
        num_classes=len(info.classes),
        in_chans=info.channels,
        channels=tuple(channels),
        drop_rate=dropout,
        act_layer=nn.ReLU if activation == "relu" else lambda inplace=True: parts.elementwise(activation),
        norm_layer=lambda channels, **_device: parts.norm(norm, channels),
        zero_init_last=False,
    )
    if small_stem:
        parts.small_stem(network, info.channels)
    if block == "preactivation":
        network.bn1 = network.act1 = nn.Identity()  # the first block brings its own; the last one needs them behind it
        network.layer4.append(parts.norm(norm, channels[-1])).append(parts.elementwise(activation))
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS[block])]
    for module, rate in zip(blocks, parts.depth_rates(stochastic_depth, len(blocks)), strict=True):
        if rate:
            module.drop_path = parts.StochasticDepth(rate)
        if zero_init and block != "plain":
            nn.init.zeros_(_last(module))
    return nn.Sequential(parts.Normalise(info.mean, info.std), network)


def _last(block: nn.Module) -> Tensor:
    """The weights at the end of a block's branch: of its norm if it has any, else of the convolution."""
    conv, norm = ("conv3", "bn3") if isinstance(block, Bottleneck) else ("conv2", "bn2")
    follows = not isinstance(block, PreActivation) and hasattr(getattr(block, norm), "weight")
    return cast(Tensor, getattr(block, norm if follows else conv).weight)
