"""Denoising diffusion (Ho et al. 2020) with the U-Net and the noise schedules of diffusers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ParamsError
from pipeline.structures import Batch, DatasetInfo


class DDPM(nn.Module):
    """Predicts the noise in an image at a random step of the forward process (algorithm 1), and walks it back (2)."""

    def __init__(self, info: DatasetInfo, channels: list[int], layers: int, timesteps: int, schedule: str) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        assert info.image_size is not None
        self.shape = (info.channels, info.image_size[0], info.image_size[1])
        levels = len(channels)
        self.network = UNet2DModel(
            sample_size=self.shape[1:],
            in_channels=info.channels,
            out_channels=info.channels,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
            norm_num_groups=8,
            attention_head_dim=32,
        )
        self.schedule = DDPMScheduler(num_train_timesteps=timesteps, beta_schedule=schedule)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the predicted noise (equation 14)."""
        images = batch.images * 2 - 1
        noise = torch.randn_like(images)
        steps = torch.randint(self.schedule.config["num_train_timesteps"], (len(images),), device=images.device)
        noisy = self.schedule.add_noise(images, noise, steps)
        return {"loss": F.mse_loss(self.network(noisy, steps).sample.float(), noise)}

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """[n, C, H, W] in 0..1, by ancestral sampling over all steps."""
        device = next(self.parameters()).device
        images = torch.randn(n, *self.shape, generator=generator).to(device)
        self.schedule.set_timesteps(self.schedule.config["num_train_timesteps"])
        for step in self.schedule.timesteps:
            noise = self.network(images, step.to(device)).sample.float()  # the noise that is added is of its type
            images = self.schedule.step(noise, step, images, generator=generator).prev_sample
        return (images / 2 + 0.5).clamp(0, 1)


def build(
    info: DatasetInfo,
    *,
    channels: list[int] = [64, 128],  # noqa: B006
    layers: int = 1,
    timesteps: int = 1000,
    schedule: str = "squaredcos_cap_v2",
) -> nn.Module:
    """A diffusion model for images of one size.

    Args:
        info: gives C, H and W.
        channels: width at each resolution, each half the one before; multiples of 32.
        layers: residual blocks at each resolution.
        timesteps: steps of the forward process, and of sampling.
        schedule: diffusers' name: linear (the paper's) or squaredcos_cap_v2 (Nichol and Dhariwal 2021).

    Raises:
        ParamsError: a width that the attention's heads of 32 channels do not divide.
    """
    if not channels or any(width < 32 or width % 32 for width in channels):
        raise ParamsError(f"model_params.channels: should be multiples of 32 ({channels}); fix: such as [32, 64]")
    return DDPM(info, channels, layers, timesteps, schedule)
