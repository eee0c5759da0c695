"""AlexNet (Krizhevsky et al. 2012, figure 2), which won ImageNet in 2012.

It shows what made depth and size trainable then: rectifiers in place of tanh (their figure 1), dropout in the dense
layers, which hold 58 of the 61 million weights, and convolutions in two groups, then for want of memory. Responses are
normalised across neighbouring maps (section 3.3), pools overlap (3.4). 60,965,224 parameters at 227 pixels.
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
    groups: int = 2,
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
        groups: of the second, fourth and fifth convolution.
        local_response_norm: after the first two, with the constants of section 3.3.
        norm: after each convolution, such as batch.
        activation: after each layer but the last.
        dropout: before both hidden dense layers.
        small_stem: for images of about 32 pixels or less: the first convolution is 3x3 without steps, all
            pools are padded.

    Raises:
        ParamsError: not five convolutions, or their channels do not fall into the groups.
        PipelineError: images of less than 67 pixels without the small stem.
    """
    layers.check_numbers(channels, CONVOLUTIONS, "classification/alexnet channels")
    convolution = partial(layers.convolution, norm_kind=norm, activation_kind=activation)
    first, second, third, fourth, fifth = channels
    kernel, stride, padding = (3, 1, 1) if small_stem else (11, 4, 0)
    pool = partial(nn.MaxPool2d, 3, stride=2, padding=int(small_stem))
    features = nn.Sequential(
        convolution(info.channels, first, kernel, stride=stride, padding=padding),
        *layers.response_norm(local_response_norm),
        pool(),
        convolution(first, second, 5, groups=groups),
        *layers.response_norm(local_response_norm),
        pool(),
        convolution(second, third, 3),
        convolution(third, fourth, 3, groups=groups),
        convolution(fourth, fifth, 3, groups=groups),
        pool(),
    )
    height, width = layers.map_size(
        features, info.image_size, "classification/alexnet" + " without small_stem" * (not small_stem)
    )
    widths = [fifth * height * width, hidden, hidden, len(info.classes)]
    dense = layers.dense(widths, [dropout, dropout, None], activation)
    return nn.Sequential(layers.Normalise(info.mean, info.std), features, nn.Flatten(), dense)
