"""An encoder that learns to know an image again in another view of it: SimCLR (Chen et al. 2020).

It shows self-supervision by comparison: of two random views of each image, each has to be nearer to the other than to
all views of the other images of the batch, so what the views change (place, size, brightness) is forgotten and what
they share is kept. The loss is taken behind a small perceptron that is thrown away (section 4.2), the embeddings before
it. The classes that `predict` gives are those of the nearest training images; a run with `inputs: checkpoints/...` and
`model: classification/resnet` of the same layers goes on from its weights.

Departures: views by crop, flip, brightness and contrast, without colour shift and blur; no LARS, no batch of thousands.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.self_supervised import SelfSupervised, encoder
from pipeline.structures import Batch, DatasetInfo


class Contrastive(SelfSupervised):
    """An encoder, a perceptron behind it, and how views are made."""

    def __init__(
        self,
        network: nn.Module,
        info: DatasetInfo,
        *,
        projection: int,
        temperature: float,
        crop: float,
        flip: bool,
        jitter: float,
        neighbours: int,
        memory: int,
    ) -> None:
        super().__init__(network, info, neighbours=neighbours, memory=memory)
        self.temperature, self.crop, self.flip, self.jitter = temperature, crop, flip, jitter
        self.projection = nn.Sequential(
            nn.Linear(self.dimension, self.dimension), nn.ReLU(), nn.Linear(self.dimension, projection)
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """NT-Xent of two views of each image; random numbers are torch's own, which the loop seeds."""
        device = batch.images.device.type
        with torch.autocast(device, enabled=False):  # which would place views by bfloat16
            views = [view(batch.images, crop=self.crop, flip=self.flip, jitter=self.jitter) for _ in range(2)]
        projections = self.projection(self.network(torch.cat(views)))
        with torch.autocast(device, enabled=False):  # cosines of near views differ in later digits
            return {"loss": nt_xent(projections.float(), self.temperature)}


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross-entropy (equation 1), mean over all views.

    -ln exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t), j the other view of image i, s the cosine.

    Args:
        projections: [2 B, D], the second views in the order of the first.
        temperature: t.
    """
    unit = F.normalize(projections, dim=1)
    logits = unit @ unit.T / temperature
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    other = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
    return F.cross_entropy(logits.masked_fill(own, -torch.inf), other)


def view(images: Tensor, *, crop: float, flip: bool, jitter: float) -> Tensor:
    """A random part of each image at its full size, perhaps mirrored, with another brightness and contrast.

    Args:
        images: [B, C, H, W] in 0..1.
        crop: smallest side of the part as a share of the image's; the share is drawn evenly up to 1.
        flip: mirrors every other image or so, left to right.
        jitter: largest change of brightness and of contrast: factors of 1 - jitter to 1 + jitter.

    Returns:
        [B, C, H, W] in 0..1.
    """
    num = len(images)
    random = torch.rand(num, 6).to(images.device)  # drawn on the CPU: the same on every device
    scale = crop + (1 - crop) * random[:, 0]
    mirror = torch.where(random[:, 1] < 0.5, -1.0, 1.0) if flip else torch.ones_like(scale)
    shift = (2 * random[:, 2:4] - 1) * (1 - scale)[:, None]  # the part stays inside, in -1..1
    zeros = torch.zeros_like(scale)
    rows = (torch.stack([scale * mirror, zeros, shift[:, 0]], 1), torch.stack([zeros, scale, shift[:, 1]], 1))
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    parts = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    brightness, contrast = (1 + jitter * (2 * random[:, 4:] - 1)).view(num, 2, 1, 1, 1).unbind(1)
    mean = parts.mean((1, 2, 3), keepdim=True)
    return (((parts - mean) * contrast + mean) * brightness).clamp(0, 1)


def build(
    info: DatasetInfo,
    *,
    encoder_name: str = "resnet18",
    encoder_params: dict[str, Any] = {},  # noqa: B006
    small_stem: bool = False,
    projection: int = 64,
    temperature: float = 0.5,
    crop: float = 0.5,
    flip: bool = True,
    jitter: float = 0.4,
    neighbours: int = 20,
    memory: int = 4096,
) -> nn.Module:
    """A model with `loss`, `predict` and `finish`.

    Args:
        info: gives K, C, the image size, mean and std.
        encoder_name, encoder_params, small_stem: see `self_supervised.encoder`.
        projection: width of the perceptron's end, on which the loss is taken.
        temperature: of the loss.
        crop, flip, jitter: see `view`.
        neighbours: training images by whose classes an image's is judged.
        memory: largest number of training images whose embeddings are kept.
    """
    network = encoder(encoder_name, info, small_stem=small_stem, encoder_params=encoder_params)
    return Contrastive(
        network,
        info,
        projection=projection,
        temperature=temperature,
        crop=crop,
        flip=flip,
        jitter=jitter,
        neighbours=neighbours,
        memory=memory,
    )
