import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.classification import lenet


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_on_the_papers_images(info_of):
    network = lenet.build(info_of(1, 28))
    # C1 (25 + 1) 6 = 156, C3 (150 + 1) 16 = 2416, C5 (400 + 1) 120 = 48120, F6 121 * 84 = 10164, 85 * 10 = 850
    assert parameters(network) == 156 + 2416 + 48120 + 10164 + 850 == 61706
    assert network[1](torch.zeros(1, 1, 28, 28)).shape == (1, 16, 5, 5)


def test_pools_average_or_take_the_largest(info_of):
    kinds = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}
    for pooling, kind in kinds.items():
        network = lenet.build(info_of(1, 28), pooling=pooling)
        assert sum(isinstance(module, kind) for module in network.modules()) == 2


def test_it_squashes_unless_told_otherwise(info_of):
    assert any(isinstance(module, nn.Tanh) for module in lenet.build(info_of(1, 28)).modules())
    assert not any(isinstance(module, nn.Tanh) for module in lenet.build(info_of(1, 28), activation="relu").modules())


def test_the_smallest_images_are_told_and_work(info_of):
    with pytest.raises(
        PipelineError, match=r"classification/lenet needs images of at least 12 pixels a side \(\[8, 8\]"
    ):
        lenet.build(info_of(1, 8))
    assert lenet.build(info_of(1, 12))(torch.zeros(1, 1, 12, 12)).shape == (1, 10)
