"""VGG (Simonyan and Zisserman 2015, table 1): nothing but 3x3 convolutions, twice the channels after each pool.

It shows that depth of small kernels beats few large ones: three 3x3 see the same 7x7 as one, with 27 against 49 weights
for each pair of channels, and two non-linearities more (section 2.3). Without options it is VGG-16 (column D), with
138,357,544 parameters at 224 pixels, 90% of them dense. A form for CIFAR has two or three blocks, `channels: 32`,
`hidden: [128]`, and `block_dropout` or `norm: batch` against over-fitting.
"""

from functools import partial

from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import layers
from pipeline.structures import DatasetInfo


def build(
    info: DatasetInfo,
    *,
    blocks: list[int] = [2, 2, 3, 3, 3],  # noqa: B006
    channels: int = 64,
    widest: int = 512,
    hidden: list[int] = [4096, 4096],  # noqa: B006
    norm: layers.NormKind = "none",
    activation: layers.ActivationKind = "relu",
    dropout: float = 0.5,
    block_dropout: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        blocks: convolutions before each pool; [2, 2, 4, 4, 4] is VGG-19.
        channels: of the first block; each next one has twice as many.
        widest: the most channels of a block.
        hidden: widths of the dense layers before the last.
        norm: after each convolution.
        activation: after each layer but the last.
        dropout: after each hidden dense layer.
        block_dropout: after each pool.

    Raises:
        ParamsError: no blocks, or one without convolutions.
        PipelineError: images of less than 2 ** len(blocks) pixels.
    """
    if not blocks or min(blocks) < 1:
        raise ParamsError(f"classification/vgg blocks: {blocks}; fix: write the convolutions of each, at least 1")
    convolution = partial(layers.convolution, norm_kind=norm, activation_kind=activation)
    maps: list[nn.Module] = []
    before = info.channels
    for block, num in enumerate(blocks):
        width = min(channels * 2**block, widest)
        for _ in range(num):
            maps.append(convolution(before, width, 3))
            before = width
        maps += [nn.MaxPool2d(2), nn.Dropout(block_dropout)]
    features = nn.Sequential(*maps)
    height, width = layers.map_size(features, info.image_size, f"classification/vgg of {len(blocks)} blocks")
    widths = [before * height * width, *hidden, len(info.classes)]
    dense = layers.dense(widths, [None, *[dropout] * len(hidden)], activation)
    return nn.Sequential(layers.Normalise(info.mean, info.std), features, nn.Flatten(), dense)
