import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.classification import vgg


def test_vgg_16_and_19_have_the_papers_parameters(info_of):
    for blocks, parameters in (([2, 2, 3, 3, 3], 138357544), ([2, 2, 4, 4, 4], 143667240)):
        with torch.device("meta"):
            network = vgg.build(info_of(3, 224, num_classes=1000), blocks=blocks)
        assert sum(p.numel() for p in network.parameters()) == parameters


def test_channels_double_after_each_pool_up_to_the_widest(info_of):
    network = vgg.build(info_of(1, 16), blocks=[1, 2, 1, 1], channels=4, widest=16, hidden=[])
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [4, 8, 8, 16, 16]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == 4


def test_the_form_for_cifar_with_norm_and_both_dropouts(info_of):
    network = vgg.build(info_of(3, 32), blocks=[1, 1], channels=8, hidden=[16], norm="batch", block_dropout=0.2)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 2
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.2, 0.2, 0.5]
    images = torch.rand(2, 3, 32, 32)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


def test_wrong_blocks_and_images_are_told(info_of):
    with pytest.raises(ParamsError, match=r"vgg blocks: \[2, 0\]"):
        vgg.build(info_of(3, 32), blocks=[2, 0])
    with pytest.raises(PipelineError, match=r"vgg of 5 blocks needs images of at least 32 pixels a side \(\[8, 8\]\)"):
        vgg.build(info_of(1, 8))
    assert vgg.build(info_of(1, 8), blocks=[1, 1, 1], channels=2, hidden=[])(torch.rand(1, 1, 8, 8)).shape == (1, 10)
