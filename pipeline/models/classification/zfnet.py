"""ZFNet (Zeiler and Fergus 2014, figure 3): AlexNet with a finer first look, which won ImageNet in 2013.

It shows a network mended by looking inside it. Pictures of AlexNet's first layers had dead filters and aliasing from
steps of 4 pixels (their figure 6), so the first convolution is 7x7 with steps of 2 here, the second 5x5 with steps of
2, none is in groups, and the top-5 error falls from 18.1 to 16.5% by that alone (their table 2). 62,357,608 parameters
at 224 pixels.
"""

from functools import partial

from torch import nn

from pipeline.models import layers
from pipeline.structures import DatasetInfo

CONVOLUTIONS = 5


def build(
    info: DatasetInfo,
    *,
    channels: list[int] = [96, 256, 384, 384, 256],  # noqa: B006
    hidden: int = 4096,
    local_response_norm: bool = True,
    norm: layers.NormKind = "none",
    activation: layers.ActivationKind = "relu",
    dropout: float = 0.5,
    small_stem: bool = False,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        channels: of the five convolutions.
        hidden: width of both dense layers before the last.
        local_response_norm: after the first two pools, across maps, with the constants of Krizhevsky et al.
        norm: after each convolution, such as batch.
        activation: after each layer but the last.
        dropout: before both hidden dense layers.
        small_stem: for images of about 32 pixels or less: the first two convolutions make no steps, all are padded.

    Raises:
        ParamsError: not five convolutions.
        PipelineError: images of less than 53 pixels without the small stem.
    """
    layers.check_numbers(channels, CONVOLUTIONS, "classification/zfnet channels")
    convolution = partial(layers.convolution, norm_kind=norm, activation_kind=activation)
    first, second, third, fourth, fifth = channels
    stride, paddings = (1, (3, 2)) if small_stem else (2, (1, 0))
    features = nn.Sequential(
        convolution(info.channels, first, 7, stride=stride, padding=paddings[0]),
        nn.MaxPool2d(3, 2, padding=1),
        *layers.response_norm(local_response_norm),
        convolution(first, second, 5, stride=stride, padding=paddings[1]),
        nn.MaxPool2d(3, 2, padding=1),
        *layers.response_norm(local_response_norm),
        convolution(second, third, 3),
        convolution(third, fourth, 3),
        convolution(fourth, fifth, 3),
        nn.MaxPool2d(3, 2, padding=int(small_stem)),
    )
    height, width = layers.map_size(
        features, info.image_size, "classification/zfnet" + " without small_stem" * (not small_stem)
    )
    widths = [fifth * height * width, hidden, hidden, len(info.classes)]
    dense = layers.dense(widths, [dropout, dropout, None], activation)
    return nn.Sequential(layers.Normalise(info.mean, info.std), features, nn.Flatten(), dense)
