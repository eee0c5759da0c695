"""An encoder that learns by telling by how much images were turned: 0, 90, 180 or 270 degrees (Gidaris et al. 2018).

It shows that labels are not needed to learn what things look like: to see which way up something is, one has to see
what it is. Each image is shown all four ways in one batch (section 3.1 finds that best). The classes that `predict`
gives are those of the nearest training images by the encoder's embeddings; a run with `inputs: checkpoints/...` and
`model: classification/resnet` of the same layers goes on from its weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.models.self_supervised import SelfSupervised, encoder
from pipeline.structures import Batch, DatasetInfo

TURNS = 4


class Rotation(SelfSupervised):
    """An encoder and a linear map of its embedding to the four turns."""

    def __init__(self, network: nn.Module, info: DatasetInfo, *, neighbours: int, memory: int) -> None:
        super().__init__(network, info, neighbours=neighbours, memory=memory)
        self.head = nn.Linear(self.dimension, TURNS)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the turn, mean over all images and turns (equation 2 of the paper)."""
        images = torch.cat([batch.images.rot90(turn, (2, 3)) for turn in range(TURNS)])
        turns = torch.arange(TURNS, device=images.device).repeat_interleave(len(batch.images))
        return {"loss": F.cross_entropy(self.head(self.network(images)), turns)}


def build(
    info: DatasetInfo,
    *,
    encoder_name: str = "resnet18",
    encoder_params: dict[str, Any] = {},  # noqa: B006
    small_stem: bool = False,
    neighbours: int = 20,
    memory: int = 4096,
) -> nn.Module:
    """A model with `loss`, `predict` and `finish`.

    Args:
        info: gives K, C, the image size, mean and std.
        encoder_name, encoder_params, small_stem: see `self_supervised.encoder`.
        neighbours: training images by whose classes an image's is judged.
        memory: largest number of training images whose embeddings are kept.

    Raises:
        PipelineError: images that are not square, which do not fit their own frame when they are turned.
    """
    if info.image_size is None or info.image_size[0] != info.image_size[1]:
        raise PipelineError(
            f"classification/rotation: images of {info.image_size} cannot be turned; fix: set training.image_size"
        )
    network = encoder(encoder_name, info, small_stem=small_stem, encoder_params=encoder_params)
    return Rotation(network, info, neighbours=neighbours, memory=memory)
