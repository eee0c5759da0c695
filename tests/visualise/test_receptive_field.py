"""The rules against closed forms, and against what gradients find."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.visualise.layer_costs import layers_of


def convolution(kernel, stride=1, dilation=1):
    return nn.Conv2d(1, 1, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation)


def fields(*modules, side=64):
    return [layer.receptive_field[0] for layer in layers_of(nn.Sequential(*modules), (1, side, side))]


def test_three_3x3_see_as_far_as_one_7x7():
    assert fields(convolution(3), convolution(3), convolution(3)) == [3, 5, 7]
    assert fields(convolution(7)) == [7]


def test_strides_widen_all_later_kernels():
    # r = 7; 7 + (3 - 1) 2 = 11; 11 + (3 - 1) 4 = 19; 19 + (5 - 1) 4 = 35
    layers = layers_of(
        nn.Sequential(convolution(7, 2), nn.MaxPool2d(3, 2, 1), convolution(3), convolution(5)), (1, 64, 64)
    )
    assert [layer.receptive_field for layer in layers] == [(7, 7), (11, 11), (19, 19), (35, 35)]
    assert [layer.jump for layer in layers] == [(2, 2), (4, 4), (4, 4), (4, 4)]


def test_dilation_spreads_a_kernel():
    # 2 (3 - 1) + 1 = 5; 5 + (3 - 1) 4 = 13
    assert fields(convolution(3, dilation=2), convolution(3, dilation=4)) == [5, 13]


def test_sides_may_differ():
    (layer,) = layers_of(nn.Sequential(nn.Conv2d(1, 1, (1, 5), (1, 2))), (1, 16, 16))
    assert (layer.receptive_field, layer.jump) == ((1, 5), (1, 2))


def test_a_dense_layer_and_a_mean_see_all_places():
    # conv: 3; pool: 4, jump 2; 4 x 4 places: 4 + 3 * 2 = 10
    dense = fields(convolution(3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 2), side=8)
    assert dense == [3, 4, 4, 10, 10]
    mean = fields(convolution(3), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), side=8)
    assert mean == [3, 4, 10, 10]


class Calls(nn.Module):
    """A module that is one function."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first = convolution(3)

    def forward(self, images):
        return self.function(self.first(images))


def last(function, side=8):
    return layers_of(nn.Sequential(Calls(function), nn.Sigmoid()), (1, side, side))[-1].receptive_field


@pytest.mark.parametrize(
    ("function", "want"),
    [
        (lambda maps: maps.mean((2, 3)), (10, 10)),
        (lambda maps: maps.flatten(2).mean(2), (10, 10)),
        (lambda maps: maps.flatten(2).transpose(1, 2), (3, 3)),
        (lambda maps: maps.flatten(2).permute(0, 2, 1).mean(1), (10, 10)),
        (lambda maps: F.linear(maps.flatten(2), torch.ones(2, 64, device="meta")), (10, 10)),
        (lambda maps: F.linear(maps.flatten(2).transpose(1, 2), torch.ones(2, 1, device="meta")), (3, 3)),
        (lambda maps: torch.cat([maps, F.max_pool2d(maps, 3, 1, 1)], 1), (5, 5)),
        (lambda maps: maps + F.avg_pool2d(maps, 5, 1, 2), (7, 7)),
        (lambda maps: F.scaled_dot_product_attention(*[maps.flatten(2).transpose(1, 2)] * 3), (10, 10)),
        (lambda maps: maps.view(1, 1, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).flatten(0, 2), None),  # windows
        (lambda maps: F.interpolate(maps, scale_factor=2.0), (3, 3)),
        (lambda maps: maps * torch.sigmoid(F.adaptive_avg_pool2d(maps, 1)), (10, 10)),
    ],
)
def test_functions_between_modules(function, want):
    assert last(function) == want


def test_square_tokens_are_told_from_channels():
    # as many channels as places, 4 x 4: only the turned tokens mix places
    for turned, want in ((True, (6, 6)), (False, (3, 3))):
        network = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), Tokens(turned))
        assert layers_of(network, (1, 4, 4))[-1].receptive_field == want


class Tokens(nn.Module):
    """A dense layer over channels, or over places."""

    def __init__(self, over_places):
        super().__init__()
        self.over_places = over_places
        self.dense = nn.Linear(16, 16)

    def forward(self, maps):
        tokens = maps.flatten(2)
        return self.dense(tokens if self.over_places else tokens.transpose(1, 2))


def test_an_enlarging_convolution_halves_the_jump():
    layers = layers_of(nn.Sequential(convolution(3, 2), nn.ConvTranspose2d(1, 1, 2, 2)), (1, 16, 16))
    assert [(layer.receptive_field[0], layer.jump[0]) for layer in layers] == [(3, 2), (3, 1)]


@pytest.mark.parametrize(
    "modules",
    [
        [convolution(3), convolution(5, 2), nn.MaxPool2d(2), convolution(3)],
        [convolution(7, 2), nn.AvgPool2d(3, 2, 1), convolution(3, dilation=2)],
    ],
)
def test_gradients_find_the_same_field(modules):
    expected = fields(*modules, side=101)[-1]
    modules = [nn.AvgPool2d(m.kernel_size, m.stride, m.padding) if isinstance(m, nn.MaxPool2d) else m for m in modules]
    network = nn.Sequential(*modules).to_empty(device="cpu")  # the report leaves shapes alone
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    image = torch.zeros(1, 1, 101, 101, requires_grad=True)
    maps = network(image)
    middle = maps.shape[2] // 2
    (gradient,) = torch.autograd.grad(maps[0, 0, middle, middle], image)
    assert int((gradient[0, 0].sum(1) != 0).sum()) == expected
