"""Vision Transformer (Dosovitskiy et al. 2021, section 3.1): an image as a sequence of patches, all looking at all.

It shows that convolutions are not needed: a patch becomes a token by one linear map, and attention alone mixes them.
Nothing of that knows which patches are neighbours, apart from position embeddings that are learnt; without them the
answer is the same for any order of the patches. What a CNN knows by its shape a ViT has to learn, so on few images
it does worse (section 4.3), and gains from a CNN as its teacher (Touvron et al. 2021).

Departure: sizes for small images (the paper's smallest, ViT-Base/16, has patch 16, width 768, depth 12, heads 12,
mlp_ratio 4; table 1).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.errors import PipelineError
from pipeline.models.layers import MultiHeadAttention, Normalise, StochasticDepth, depth_rates
from pipeline.structures import DatasetInfo


class Block(nn.Module):
    """Attention, then a perceptron on each token, both normalised before and added to what came in (equations 2, 3)."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float, depth_rate: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )
        self.depth = StochasticDepth(depth_rate)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        tokens = tokens + self.depth(self.attention(self.norm1(tokens)))
        return tokens + self.depth(self.mlp(self.norm2(tokens)))


class ViT(nn.Module):
    """Patches and a class token through the blocks; the class token's end gives the logits.

    Args:
        grid: patches from top to bottom and from left to right.
        positions: whether tokens know their place.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        grid: tuple[int, int],
        patch: int,
        width: int,
        blocks: list[Block],
        positions: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)  # a linear map of each patch
        self.class_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(1 + grid[0] * grid[1], width)) if positions else None
        if self.positions is not None:
            nn.init.trunc_normal_(self.positions, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> logits [B, K]."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(patches), 1, -1), patches], 1)
        if self.positions is not None:
            tokens = tokens + self.positions
        return self.head(self.norm(self.blocks(self.dropout(tokens))[:, 0]))


def build(
    info: DatasetInfo,
    *,
    patch: int = 4,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    mlp_ratio: float = 2.0,
    positions: Literal["learned", "none"] = "learned",
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        patch: side of a patch in pixels.
        width: D, channels of a token.
        depth: blocks.
        heads: of the attention.
        mlp_ratio: hidden width of the perceptrons as a multiple of D.
        positions: none: the order of the patches is not known.
        dropout: of the first tokens and in the perceptrons.
        stochastic_depth: chance of the last block's branches to be left out in training.

    Raises:
        PipelineError: the images cannot be cut into patches.
        ParamsError: the width is no multiple of the heads.
    """
    size = info.image_size
    if size is None or any(side % patch for side in size):
        raise PipelineError(
            f"classification/vit: no whole number of patches of {patch} pixels in images of {size}; "
            "fix: training.image_size or model_params.patch"
        )
    rates = depth_rates(stochastic_depth, depth)
    network = ViT(
        info.channels,
        len(info.classes),
        grid=(size[0] // patch, size[1] // patch),
        patch=patch,
        width=width,
        blocks=[Block(width, heads, round(mlp_ratio * width), dropout, rate) for rate in rates],
        positions=positions == "learned",
        dropout=dropout,
    )
    return nn.Sequential(Normalise(info.mean, info.std), network)
