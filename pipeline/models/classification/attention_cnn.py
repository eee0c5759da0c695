"""A small CNN with a self-attention layer between its convolutions, as Zhang et al. 2019 (SAGAN), section 3, have it.

It shows what attention adds to convolutions: those see their kernel's neighbourhood, the layer lets each place of
a map see every other at once. It is added with a factor that starts at 0, so that the network begins as the plain CNN
(`attention: false` is that foil) and takes from afar only what helps.

Departures: batch norm, and a CNN of our own around the layer, which the paper puts into a GAN.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.layers import Normalise, at_least, convolution
from pipeline.structures import DatasetInfo

REDUCTION = 8  # of the channels of queries, keys and values: section 3


class SelfAttention(nn.Module):
    """x + gamma * W v, v the values of all places weighed by softmax of query times key (equations 1 to 3).

    Args:
        channels: C of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H, W]."""
        query, key, value = (layer(maps).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)  # the paper does not scale
        return maps + self.gamma * self.out(mixed.transpose(1, 2).unflatten(2, maps.shape[2:]))


def build(
    info: DatasetInfo,
    *,
    channels: list[int] = [32, 64, 128],  # noqa: B006
    attention: bool = True,
    dropout: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        channels: of the groups of two 3x3 convolutions each, with maps of half the side from one to the next.
        attention: self-attention before the last group.
        dropout: before the last layer.

    Raises:
        PipelineError: images too small to be halved so often.
    """
    at_least(2 ** (len(channels) - 1), info.image_size, "classification/attention_cnn")
    stages: list[nn.Module] = []
    before = info.channels
    for index, width in enumerate(channels):
        if index:
            stages.append(nn.MaxPool2d(2))
        if attention and index == len(channels) - 1:
            stages.append(SelfAttention(before))
        stages += [convolution(before, width, 3), convolution(width, width, 3)]
        before = width
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(before, len(info.classes))
    )
    return nn.Sequential(Normalise(info.mean, info.std), nn.Sequential(*stages), head)
