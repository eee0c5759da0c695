import numpy as np
import pytest
import torch

from pipeline.models.classification import contrastive
from pipeline.structures import Batch

STILL = {"crop": 1.0, "flip": False, "jitter": 0.0}


def test_nt_xent_by_hand():
    views = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 5.0]])  # views of two images at right angles
    # of each view: the other one at cosine 1, two at cosine 0: -ln(e / (e + 1 + 1)) = ln(1 + 2 / e)
    assert contrastive.nt_xent(views, 1.0).item() == pytest.approx(np.log(1 + 2 / np.e), abs=1e-6)
    # at temperature 0.5: ln(1 + 2 / e^2)
    assert contrastive.nt_xent(views, 0.5).item() == pytest.approx(np.log(1 + 2 / np.e**2), abs=1e-6)
    # the second views changed about: -ln(1 / (1 + 1 + e))
    assert contrastive.nt_xent(views[[0, 1, 3, 2]], 1.0).item() == pytest.approx(np.log(2 + np.e), abs=1e-6)


def test_nt_xent_is_equation_1_view_by_view():
    torch.manual_seed(0)
    views = torch.randn(6, 4)
    losses = []
    for i in range(6):
        fits = [torch.cosine_similarity(views[i], views[k], 0).div(0.3).exp() for k in range(6)]
        losses.append(-torch.log(fits[(i + 3) % 6] / sum(fits[k] for k in range(6) if k != i)))
    torch.testing.assert_close(contrastive.nt_xent(views, 0.3), torch.stack(losses).mean())


def test_a_view_without_changes_is_the_image_and_mirrors_mirror_some():
    images = torch.rand(32, 3, 8, 8)
    torch.testing.assert_close(contrastive.view(images, **STILL), images, atol=1e-6, rtol=0)
    found = contrastive.view(images, **STILL | {"flip": True})
    kept = [torch.allclose(one, other, atol=1e-6) for one, other in zip(found, images, strict=True)]
    mirrored = [torch.allclose(one.flip(2), other, atol=1e-6) for one, other in zip(found, images, strict=True)]
    assert [a or b for a, b in zip(kept, mirrored, strict=True)] == [True] * 32
    assert 4 < sum(kept) < 28


def test_a_crop_is_a_part_of_the_image_at_its_full_size():
    ramp = torch.linspace(0, 1, 64).expand(50, 1, 64, 64)  # grows from left to right
    found = contrastive.view(ramp, **STILL | {"crop": 0.25})
    widths = (found[:, 0, 0, -1] - found[:, 0, 0, 0]) * 64 / 63
    assert 0.2 < widths.min() < 0.4 < 0.8 < widths.max() < 1.05
    steps = found[:, 0, :, 1:] - found[:, 0, :, :-1]
    inner = steps[:, :, 3:-3]
    torch.testing.assert_close(inner, inner.mean((1, 2), keepdim=True).expand_as(inner), atol=2e-3, rtol=0)
    assert found[:, 0, 0, 0].min() < 0.1 < 0.4 < found[:, 0, 0, 0].max()


def test_jitter_changes_brightness_within_bounds():
    grey = torch.full((200, 1, 4, 4), 0.5)
    found = contrastive.view(grey, **STILL | {"jitter": 0.4})[:, 0, 0, 0]  # an even image has no contrast to change
    assert 0.3 <= found.min() < 0.33 < 0.67 < found.max() <= 0.7
    assert found.mean() == pytest.approx(0.5, abs=0.03)


def test_views_follow_the_seed(info_of):
    model = contrastive.build(
        info_of(3, 16), encoder_params={"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}, small_stem=True
    )
    batch, losses = Batch(torch.rand(4, 3, 16, 16), [""] * 4, [(16, 16)] * 4), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model.eval().loss(batch)["loss"].item())
    assert losses[0] == losses[1] != losses[2]


def test_views_and_cosines_are_the_same_under_bfloat16(info_of, monkeypatch):
    model = contrastive.build(
        info_of(3, 16), encoder_params={"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}, neighbours=1, memory=4
    )
    model.network, model.projection = torch.nn.Flatten(), torch.nn.Identity()
    batch = Batch(torch.rand(8, 3, 16, 16), list("abcdefgh"), [(16, 16)] * 8)
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(model.loss(batch)["loss"].item())
    assert losses[0] == losses[1]
