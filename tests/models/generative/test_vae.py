"""The two terms of the bound and the samples of a VAE whose weights are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.models.generative import vae
from pipeline.structures import DatasetInfo

INFO = DatasetInfo("toy", [], [], 1, "none", "none", "here", image_size=[1, 2])


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Of images of two pixels: means 1 and 2, variances 4 and 1 whatever is shown; logits -(a + b) and a - b."""
    made = vae.build(INFO, latent=2, hidden=4, beta=0.5)
    for parameter in made.parameters():
        nn.init.zeros_(parameter)
    made.decoder = nn.Linear(2, 2)
    with torch.no_grad():
        made.encoder[-1].bias.copy_(torch.tensor([1.0, 2.0, np.log(4), 0.0]))
        made.decoder.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, -1.0]]))
        made.decoder.bias.zero_()
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)  # each latent lies one standard deviation above its mean
    return made


def test_loss_by_hand(model: nn.Module) -> None:
    images = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.25]]]])
    parts = model.loss(SimpleNamespace(images=images))
    # latents 1 + 2 and 2 + 1: logits -6 and 0. Of pixel x with logit l: log(1 + exp(l)) - x l
    first = np.log1p(np.exp(-6)) + 6 + np.log(2)
    second = np.log1p(np.exp(-6)) + np.log(2)
    assert parts["reconstruction"].item() == pytest.approx((first + second) / 2, rel=1e-6)
    # (1 + 4 - 1 - log 4) / 2 and (4 + 1 - 1 - 0) / 2
    divergence = (4 - np.log(4)) / 2 + 2
    assert parts["divergence"].item() == pytest.approx(divergence, rel=1e-6)
    assert parts["loss"].item() == pytest.approx((first + second) / 2 + 0.5 * divergence, rel=1e-6)


def test_samples_are_what_the_decoder_makes_of_normal_latents(model: nn.Module) -> None:
    latents = torch.randn(5, 2, generator=torch.Generator().manual_seed(3)).numpy()
    a, b = latents.T
    expected = 1 / (1 + np.exp(-np.stack([-(a + b), a - b], 1)))
    found = model.sample(5, torch.Generator().manual_seed(3)).detach()
    assert found.shape == (5, 1, 1, 2)
    assert found.flatten(1).numpy() == pytest.approx(expected, rel=1e-5)
