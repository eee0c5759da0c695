"""An AlexNet for images of 32 pixels: three convolutions, each pooled to half, and three dense layers.

It shows the shape that all later networks share: maps get smaller and more numerous (64 of 32x32, 128 of 16x16, 256 of
8x8) while the kernels shrink (7, 5, 3), until a vector is left for the dense layers. Nearly all multiplications are in
the convolutions, and most weights in the dense layers; `python -m pipeline complexity RUN` prints the table.

After Krizhevsky et al. 2012 (section 3.5), with sizes for CIFAR; the widths of the dense layers are a choice.
"""

from torch import nn

from pipeline.models import layers
from pipeline.structures import DatasetInfo

CHANNELS, KERNELS = (64, 128, 256), (7, 5, 3)


def build(
    info: DatasetInfo,
    *,
    hidden: list[int] = [384, 192],  # noqa: B006
    norm: layers.NormKind = "none",
    activation: layers.ActivationKind = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        hidden: widths of the dense layers before the last.
        norm: after each convolution.
        activation: after each layer but the last.
        dropout: before each dense layer.

    Raises:
        PipelineError: images of less than 8 pixels.
    """
    maps: list[nn.Module] = []
    channels = info.channels
    for out, kernel in zip(CHANNELS, KERNELS, strict=True):
        maps += [layers.convolution(channels, out, kernel, norm_kind=norm, activation_kind=activation)]
        maps += [nn.MaxPool2d(2)]
        channels = out
    features = nn.Sequential(*maps)
    height, width = layers.map_size(features, info.image_size, "classification/cifar_alexnet")
    widths = [channels * height * width, *hidden, len(info.classes)]
    dense = layers.dense(widths, [dropout] * (len(hidden) + 1), activation)
    return nn.Sequential(layers.Normalise(info.mean, info.std), features, nn.Flatten(), dense)
