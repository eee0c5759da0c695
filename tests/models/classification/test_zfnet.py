import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.classification import alexnet, zfnet


def test_the_papers_shapes_and_parameters(info_of):
    with torch.device("meta"):
        network = zfnet.build(info_of(3, 224, num_classes=1000))
        maps, sides = torch.zeros(1, 3, 224, 224), []
        for module in network[1]:
            maps = module(maps)
            sides.append(maps.shape[2])
    # figure 3: 110, pooled to 55, 26, pooled to 13, three times 13, pooled to 6
    assert list(dict.fromkeys(sides)) == [110, 55, 26, 13, 6]
    # 14208 + 614656 + 885120 + 1327488 + 884992 of convolutions, 37752832 + 16781312 + 4097000 dense
    assert sum(p.numel() for p in network.parameters()) == 62357608


def test_its_first_look_is_finer_than_alexnets(info_of):
    first = [
        next(m for m in file.build(info_of(3, 67), channels=[2] * 5, hidden=2).modules() if isinstance(m, nn.Conv2d))
        for file in (zfnet, alexnet)
    ]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in first] == [(7, 2), (11, 4)]


def test_small_images_want_the_small_stem(info_of):
    with pytest.raises(
        PipelineError, match=r"without small_stem needs images of at least 53 pixels a side \(\[32, 32\]\)"
    ):
        zfnet.build(info_of(3, 32))
    for channels, side in ((1, 8), (3, 32)):
        small = zfnet.build(info_of(channels, side), small_stem=True, channels=[4] * 5, hidden=4).eval()
        assert small(torch.rand(2, channels, side, side)).shape == (2, 10)
