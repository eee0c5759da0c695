import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.classification import cifar_alexnet


def test_the_lectures_table_of_shapes(info_of):
    features = cifar_alexnet.build(info_of(3, 32))[1]
    maps, shapes = torch.zeros(1, 3, 32, 32), []
    for module in features:
        maps = module(maps)
        shapes.append(tuple(maps.shape[1:]))
    assert shapes == [(64, 32, 32), (64, 16, 16), (128, 16, 16), (128, 8, 8), (256, 8, 8), (256, 4, 4)]
    kernels = [module.kernel_size for module in features.modules() if isinstance(module, nn.Conv2d)]
    assert kernels == [(7, 7), (5, 5), (3, 3)]


def test_three_dense_layers_whose_weights_are_those_of_the_flattened_maps(info_of):
    dense = [m for m in cifar_alexnet.build(info_of(3, 32)).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in dense] == [(4096, 384), (384, 192), (192, 10)]
    grey = [m for m in cifar_alexnet.build(info_of(1, 8), hidden=[6]).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in grey] == [(256, 6), (6, 10)]  # 8 -> 4 -> 2 -> 1


def test_maxout_gives_the_next_layer_the_channels_that_it_wants(info_of):
    network = cifar_alexnet.build(info_of(3, 16), activation="maxout", norm="batch")
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 10)
    assert next(m for m in network.modules() if isinstance(m, nn.Conv2d)).out_channels == 128


def test_images_that_pools_halve_to_nothing_are_told(info_of):
    message = r"cifar_alexnet needs images of at least 8 pixels a side \(\[7, 7\]\); fix: set training\.image_size to 8"
    with pytest.raises(PipelineError, match=message):
        cifar_alexnet.build(info_of(3, 7))
