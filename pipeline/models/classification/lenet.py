"""LeNet-5 (LeCun et al. 1998, figure 2): the first convolutional network in wide use, made for digits.

It shows what convolutions are for: one small detector slides over all places, so 6 and then 16 maps need 2,572 weights
where dense layers between the same maps would need millions. As printed but for three points: average pooling has no
weights of its own, the second convolution sees all maps (not the choice of table I), and a softmax takes the place of
radial basis functions. 61,706 parameters on grey images of 28 pixels.
"""

from functools import partial
from typing import Literal

from torch import nn

from pipeline.models import layers
from pipeline.structures import DatasetInfo


def build(
    info: DatasetInfo,
    *,
    pooling: Literal["average", "max"] = "average",
    norm: layers.NormKind = "none",
    activation: layers.ActivationKind = "tanh",
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std; the paper's 28 pixels, padded to 32, give 16 maps of 5x5.
        pooling: how each 2x2 becomes one.
        norm: after both convolutions.
        activation: after each layer but the last.

    Raises:
        PipelineError: images of less than 12 pixels.
    """
    convolution = partial(layers.convolution, kernel=5, norm_kind=norm, activation_kind=activation)
    pool = nn.AvgPool2d if pooling == "average" else nn.MaxPool2d
    features = nn.Sequential(convolution(info.channels, 6), pool(2), convolution(6, 16, padding=0), pool(2))
    height, width = layers.map_size(features, info.image_size, "classification/lenet")
    pieces = layers.pieces(activation)
    return nn.Sequential(
        layers.Normalise(info.mean, info.std),
        features,
        nn.Flatten(),
        nn.Linear(16 * height * width, 120 * pieces),
        layers.activation(activation),
        nn.Linear(120, 84 * pieces),
        layers.activation(activation),
        nn.Linear(84, len(info.classes)),
    )
