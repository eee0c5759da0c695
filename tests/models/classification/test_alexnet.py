import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.classification import alexnet


def test_parameters_of_the_papers_network(info_of):
    with torch.device("meta"):
        network = alexnet.build(info_of(3, 227, num_classes=1000))
        assert network[1](torch.zeros(1, 3, 227, 227)).shape == (1, 256, 6, 6)
    # convolutions 34944 + 307456 + 885120 + 663936 + 442624, dense 37752832 + 16781312 + 4097000
    assert sum(p.numel() for p in network.parameters()) == 60965224


def test_two_groups_halve_the_weights_and_see_half_of_the_maps(info_of):
    widths = {"channels": [4, 8, 8, 8, 8], "hidden": 8, "small_stem": True}
    counts = []
    for groups in (1, 2):
        network = alexnet.build(info_of(3, 16), groups=groups, **widths)
        second = [module for module in network.modules() if isinstance(module, nn.Conv2d)][1]
        counts.append(second.weight.numel())
    assert counts == [4 * 8 * 25, 4 * 8 * 25 // 2]
    maps = torch.randn(1, 4, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(second(maps)[:, :4].sum(), maps)
    assert gradient[:, :2].any()
    assert not gradient[:, 2:].any()


def test_responses_are_normalised_as_the_paper_has_it(info_of):
    network = alexnet.build(info_of(3, 67), channels=[8] * 5, hidden=4)
    layer = next(module for module in network.modules() if isinstance(module, nn.LocalResponseNorm))
    maps = torch.rand(1, 8, 1, 1) * 20
    a = maps.flatten().double().numpy()
    want = [  # a / (2 + 0.0001 * the sum of squares of up to two maps on each side and its own) ** 0.75
        a[i] / (2 + 1e-4 * np.square(a[max(0, i - 2) : i + 3]).sum()) ** 0.75 for i in range(8)
    ]
    np.testing.assert_allclose(layer(maps).flatten().numpy(), want, rtol=1e-5)


def test_small_images_want_the_small_stem(info_of):
    with pytest.raises(
        PipelineError, match=r"without small_stem needs images of at least 67 pixels a side \(\[32, 32\]\)"
    ):
        alexnet.build(info_of(3, 32))
    small = alexnet.build(info_of(1, 8), small_stem=True, channels=[4] * 5, hidden=4).eval()
    assert small(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_wrong_numbers_are_told(info_of):
    with pytest.raises(ParamsError, match=r"alexnet channels: \[4, 4\]; fix: write 5 numbers"):
        alexnet.build(info_of(3, 227), channels=[4, 4])
    with pytest.raises(ParamsError, match="3 and 4 channels do not fall into 2 groups"):
        alexnet.build(info_of(3, 227), channels=[3, 4, 4, 4, 4])
