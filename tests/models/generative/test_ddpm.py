"""The loss and the sampler of a DDPM beside the paper's equations (Ho et al. 2020), with networks that are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.models.generative import ddpm
from pipeline.structures import DatasetInfo

TIMESTEPS = 20
INFO = DatasetInfo("toy", [], [], 1, "none", "none", "here", image_size=[8, 8])
BETAS = np.linspace(1e-4, 0.02, TIMESTEPS)  # section 4
SHARES = np.cumprod(1 - BETAS)
"""Of the signal's variance that is left after each step: the paper's alpha with a bar."""


class Oracle(nn.Module):
    """Knows the image x0, in -1..1, and so what noise it was mixed with (equation 4 solved for epsilon)."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, noisy: Tensor, steps: Tensor) -> SimpleNamespace:
        share = torch.as_tensor(SHARES)[steps].reshape(-1, 1, 1, 1)
        return SimpleNamespace(sample=((noisy - share.sqrt() * self.image) / (1 - share).sqrt()).float())


class Tenth(nn.Module):
    """Takes a tenth of what it is shown for noise."""

    def __init__(self) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.1))

    def forward(self, noisy: Tensor, steps: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.share * noisy)


def with_network(network: nn.Module) -> ddpm.DDPM:
    model = ddpm.build(INFO, channels=[32], timesteps=TIMESTEPS, schedule="linear")
    model.network = network
    return model


@pytest.fixture
def images() -> Tensor:
    """[3, 1, 8, 8] in 0..1."""
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_who_knows_the_image_has_no_loss(images: Tensor) -> None:
    torch.manual_seed(0)
    for _ in range(20):  # of three random steps each
        loss = with_network(Oracle(images * 2 - 1)).loss(SimpleNamespace(images=images))["loss"]
        assert loss.item() == pytest.approx(0, abs=1e-8)


def test_who_says_there_is_no_noise_loses_its_square(images: Tensor) -> None:
    model = with_network(Tenth())
    nn.init.zeros_(model.network.share)
    torch.manual_seed(0)
    noise = torch.randn_like(images)
    torch.manual_seed(0)
    assert model.loss(SimpleNamespace(images=images))["loss"].item() == pytest.approx(noise.square().mean().item())


def test_who_knows_the_image_walks_back_to_it(images: Tensor) -> None:
    with torch.no_grad():
        found = with_network(Oracle(images * 2 - 1)).sample(3, torch.Generator().manual_seed(1))
    assert found.numpy() == pytest.approx(images.numpy(), abs=1e-5)


def test_samples_follow_the_reverse_process() -> None:
    with torch.no_grad():
        found = with_network(Tenth()).sample(3, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(3, 1, 8, 8, generator=generator).double().numpy()
    for t in reversed(range(TIMESTEPS)):
        # equation 15, what the image would be, kept to -1..1; equations 6 and 7, the step before given that image
        image = np.clip((drawn - np.sqrt(1 - SHARES[t]) * 0.1 * drawn) / np.sqrt(SHARES[t]), -1, 1)
        before = SHARES[t - 1] if t else 1.0
        mean = np.sqrt(before) * BETAS[t] * image + np.sqrt(1 - BETAS[t]) * (1 - before) * drawn
        drawn = mean / (1 - SHARES[t])
        if t:
            noise = torch.randn(3, 1, 8, 8, generator=generator).double().numpy()
            drawn = drawn + np.sqrt((1 - before) / (1 - SHARES[t]) * BETAS[t]) * noise
    expected = (drawn / 2 + 0.5).clip(0, 1)
    assert 0.6 < ((expected > 0) & (expected < 1)).mean() < 1
    assert found.numpy() == pytest.approx(expected, abs=1e-5)


def test_the_forward_process_ends_in_noise(images: Tensor) -> None:
    model = ddpm.build(INFO, channels=[32], timesteps=TIMESTEPS)
    noisy = model.schedule.add_noise(images * 2 - 1, torch.zeros_like(images), torch.tensor([TIMESTEPS - 1] * 3))
    assert noisy.abs().max() < 0.05
