"""Variational autoencoder (Kingma and Welling 2014) with dense layers and Bernoulli pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.structures import Batch, DatasetInfo


class VAE(nn.Module):
    """Encoder to the mean and log variance of a Gaussian, decoder from a draw of it back to pixels."""

    def __init__(self, shape: tuple[int, int, int], latent: int, hidden: int, beta: float) -> None:
        super().__init__()
        num_pixels = shape[0] * shape[1] * shape[2]
        self.shape, self.latent, self.beta = shape, latent, beta
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(num_pixels, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, 2 * latent),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, num_pixels)
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The negative evidence lower bound in nats per image, its KL term weighted by beta."""
        mean, log_variance = self.encoder(batch.images).float().chunk(2, 1)
        latents = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        logits = self.decoder(latents).float()
        reconstruction = F.binary_cross_entropy_with_logits(logits, batch.images.flatten(1), reduction="none").sum(1)
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
        return {
            "loss": (reconstruction + self.beta * divergence).mean(),
            "reconstruction": reconstruction.mean(),
            "divergence": divergence.mean(),
        }

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """[n, C, H, W] in 0..1: the decoder's mean image at draws from the prior."""
        latents = torch.randn(n, self.latent, generator=generator)
        return self.decoder(latents.to(next(self.parameters()).device)).float().sigmoid().view(n, *self.shape)


def build(info: DatasetInfo, *, latent: int = 16, hidden: int = 256, beta: float = 1.0) -> nn.Module:
    """A VAE for images of one size.

    Args:
        info: gives C, H and W.
        latent: number of latent variables.
        hidden: width of the two hidden layers on each side.
        beta: weight of the KL term; 1 is the evidence lower bound.

    Raises:
        PipelineError: images are not of one size.
    """
    if info.image_size is None:
        raise PipelineError(f"dataset {info.name}: a VAE needs images of one size; fix: set training.image_size")
    return VAE((info.channels, info.image_size[0], info.image_size[1]), latent, hidden, beta)
