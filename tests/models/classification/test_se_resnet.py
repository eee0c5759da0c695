import numpy as np
import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.classification import se_resnet


def test_a_gate_scales_each_channel_by_what_the_means_of_all_say():
    gate = se_resnet.Gate(6, reduction=3)
    maps = torch.randn(2, 6, 4, 5)
    means = maps.mean((2, 3)).numpy()
    reduce, expand = (
        (layer.weight.detach()[:, :, 0, 0].numpy(), layer.bias.detach().numpy()) for layer in (gate.reduce, gate.expand)
    )
    inner = np.maximum(0, means @ reduce[0].T + reduce[1])
    scales = 1 / (1 + np.exp(-(inner @ expand[0].T + expand[1])))
    np.testing.assert_allclose(
        gate(maps).detach().numpy(), maps.numpy() * scales[:, :, None, None], rtol=1e-5, atol=1e-6
    )
    assert gate.reduce.out_channels == 2


def test_a_place_depends_on_all_others_through_the_gate():
    block = se_resnet.Block(4, torch.nn.Identity(), 4, 1, 2, "batch", "relu")
    maps = torch.rand(1, 4, 6, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(maps)[0, 0, 0, 0], maps)
    assert gradient.abs().sum(1).gt(0).all()


def test_se_resnet_50_has_the_papers_parameters(info_of):
    with torch.device("meta"):
        network = se_resnet.build(info_of(3, 224, num_classes=1000), layers=[3, 4, 6, 3], block="bottleneck")
    # ResNet-50's 25557032, and of each gate 2 c**2 / 16 + c / 16 + c for c = 256, 512, 1024, 2048
    gates = sum(
        num * (2 * c * c // 16 + c // 16 + c) for num, c in zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True)
    )
    assert sum(p.numel() for p in network.parameters()) == 25557032 + gates == 28088024


def test_wrong_numbers_are_told(info_of):
    with pytest.raises(ParamsError, match="se_resnet reduction"):
        se_resnet.build(info_of(3, 32), reduction=0)
