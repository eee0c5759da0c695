"""MobileNet (Howard et al. 2017, table 1): convolutions taken apart into where and what.

It shows the depthwise separable convolution (figure 2): a k x k filter of each map by itself, then a 1x1 mix of maps.
That costs 1 / out + 1 / k^2 of the full convolution (equation 5), about a ninth for 3x3, and scores nearly the same
(table 4). `separable: false` is the foil, the same network of full convolutions. 4,231,976 parameters at 1,000 classes.
"""

from functools import partial

from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import layers
from pipeline.structures import DatasetInfo

STEM = 32
# table 1: channels and stride of each depthwise and pointwise pair
BODY = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def build(
    info: DatasetInfo,
    *,
    width: float = 1.0,
    separable: bool = True,
    small_stem: bool = False,
    dropout: float = 0.0,
    norm: layers.NormKind = "batch",
    activation: layers.ActivationKind = "relu",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, mean and std.
        width: factor of all channels (section 3.3).
        separable: depthwise and pointwise; false: full 3x3 convolutions.
        small_stem: for images of about 32 pixels or less: the stem makes no steps.
        dropout: before the last layer.
        norm, activation: after each convolution.

    Raises:
        ParamsError: a width of 0 or less.
    """
    if width <= 0:
        raise ParamsError(f"classification/mobilenet width: {width}; fix: above 0")
    convolution = partial(layers.convolution, norm_kind=norm, activation_kind=activation)
    channels = max(1, round(STEM * width))
    blocks = [convolution(info.channels, channels, 3, stride=1 if small_stem else 2)]
    for full_width, stride in BODY:
        out = max(1, round(full_width * width))
        if separable:
            depthwise = convolution(channels, channels, 3, stride=stride, groups=channels)
            blocks.append(nn.Sequential(depthwise, convolution(channels, out, 1)))
        else:
            blocks.append(convolution(channels, out, 3, stride=stride))
        channels = out
    normalise = layers.Normalise(info.mean, info.std)
    return nn.Sequential(normalise, *blocks, layers.classifier(channels, len(info.classes), dropout))
