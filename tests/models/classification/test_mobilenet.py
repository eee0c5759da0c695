import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.classification import mobilenet


def convolutions(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def test_parameters_of_table_1_and_of_its_foil_in_table_4(info_of):
    counts = []
    for separable in (True, False):
        with torch.device("meta"):
            network = mobilenet.build(info_of(3, 224, num_classes=1000), separable=separable)
        counts.append(sum(p.numel() for p in network.parameters()))
    assert counts == [4231976, 29294088]  # the paper: 4.2 and 29.3 million


def test_a_pair_costs_one_over_out_and_one_over_nine_of_the_full_convolution(info_of):
    separable, full = (
        convolutions(mobilenet.build(info_of(3, 32), width=0.5, separable=kind)) for kind in (True, False)
    )
    depthwise, pointwise = separable[3], separable[4]
    cost = depthwise.weight.numel() + pointwise.weight.numel()
    assert (depthwise.groups, pointwise.kernel_size) == (depthwise.in_channels, (1, 1))
    # equation 5
    assert cost / full[2].weight.numel() == pytest.approx(1 / pointwise.out_channels + 1 / 9)


def test_a_depthwise_convolution_filters_each_map_by_itself(info_of):
    depthwise = convolutions(mobilenet.build(info_of(3, 32), width=0.25))[1]
    maps = torch.randn(1, depthwise.in_channels, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(depthwise(maps)[:, 2].sum(), maps)
    assert gradient.abs().sum((0, 2, 3)).nonzero().flatten().tolist() == [2]


def test_a_width_of_nothing_is_told(info_of):
    with pytest.raises(ParamsError, match=r"mobilenet width: -1\.0"):
        mobilenet.build(info_of(3, 32), width=-1.0)
