"""MLP-Mixer (Tolstikhin et al. 2021, section 2): patches mixed by perceptrons alone.

It shows that attention is not needed either: one perceptron, the same for all channels, mixes the places of a channel,
another, the same for all places, mixes the channels of a place, by turns. The weights of the first belong to places,
so it needs no position embedding, and images of the size that it was built for.

Departure: sizes for small images (the paper's smallest, Mixer-S/32, has width 512, depth 8, token_width 256,
channel_width 2048; table 1).
"""

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.models.layers import Normalise, StochasticDepth, depth_rates
from pipeline.structures import DatasetInfo


def perceptron(width: int, hidden: int, dropout: float) -> nn.Sequential:
    """Two dense layers with a GELU between (equation 1)."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
    )


class Block(nn.Module):
    """Mixes places, then channels, both normalised before and added to what came in."""

    def __init__(self, num: int, width: int, token_width: int, channel_width: int, dropout: float, rate: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = perceptron(num, token_width, dropout)
        self.channels = perceptron(width, channel_width, dropout)
        self.depth = StochasticDepth(rate)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        patches = patches + self.depth(self.tokens(self.norm1(patches).transpose(1, 2)).transpose(1, 2))
        return patches + self.depth(self.channels(self.norm2(patches)))


class MLPMixer(nn.Module):
    """Patches through the blocks; the logits are a linear map of their mean."""

    def __init__(self, channels: int, num_classes: int, patch: int, width: int, blocks: list[Block]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)  # a linear map of each patch
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        return self.head(torch.mean(self.norm(self.blocks(patches)), 1))


def build(
    info: DatasetInfo,
    *,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    token_width: int = 64,
    channel_width: int = 128,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        patch: side of a patch in pixels.
        width: D, channels of a patch.
        depth: blocks.
        token_width, channel_width: hidden widths of the two perceptrons.
        dropout: in the perceptrons.
        stochastic_depth: chance of the last block's branches to be left out in training.

    Raises:
        PipelineError: the images cannot be cut into patches.
    """
    size = info.image_size
    if size is None or any(side % patch for side in size):
        raise PipelineError(
            f"classification/mlp_mixer: no whole number of patches of {patch} pixels in images of {size}; "
            "fix: training.image_size or model_params.patch"
        )
    num = (size[0] // patch) * (size[1] // patch)
    rates = depth_rates(stochastic_depth, depth)
    blocks = [Block(num, width, token_width, channel_width, dropout, rate) for rate in rates]
    network = MLPMixer(info.channels, len(info.classes), patch, width, blocks)
    return nn.Sequential(Normalise(info.mean, info.std), network)
