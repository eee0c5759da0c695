"""Widths that a network's normalisation or attention cannot divide are one line before anything is trained."""

import pytest

from pipeline.errors import ParamsError
from pipeline.models.detection import fcos
from pipeline.models.generative import ddpm
from pipeline.structures import DatasetInfo

TINY = {"backbone": "test_efficientnet", "weights": "none", "convs": 1}


def info(size: int, channels: int = 3) -> DatasetInfo:
    return DatasetInfo("toy", [], ["a"], channels, "CC0", "us", "here", image_size=[size, size])


@pytest.mark.parametrize("channels", [[], [48], [32, 40], [0], [-32], [16, 32]])
def test_ddpm_takes_multiples_of_32(channels: list[int]) -> None:
    with pytest.raises(ParamsError, match=r"^model_params\.channels: should be multiples of 32 \(\[.*; fix: such as"):
        ddpm.build(info(8), channels=channels)


@pytest.mark.parametrize(("channels", "size"), [(48, 96), (16, 96), (0, 96), (32, 64), (32, 40)])
def test_fcos_takes_multiples_of_32_and_more_of_them_on_small_images(channels: int, size: int) -> None:
    with pytest.raises(ParamsError, match=r"^model_params\.channels: .*; fix: ") as caught:
        fcos.build(info(size), channels=channels, **TINY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("channels", "size"), [(32, 96), (64, 64)])
def test_fcos_learns_at_the_least_of_what_it_takes(channels: int, size: int) -> None:
    import torch

    network = fcos.build(info(size), channels=channels, **TINY).train()
    target = {"boxes": torch.tensor([[4.0, 4.0, 30.0, 30.0]]), "labels": torch.tensor([0])}
    losses = network([torch.rand(3, size, size)], [target])
    assert all(torch.isfinite(loss) for loss in losses.values())
