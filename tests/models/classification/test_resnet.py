import pytest
import torch
from timm.models.resnet import BasicBlock
from timm.models.resnet import ResNet as Timm
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import layers as parts
from pipeline.models.classification import resnet

TOY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "small_stem": True}


def blocks(network, kind):
    return [module for module in network.modules() if isinstance(module, resnet.BLOCKS[kind])]


def test_without_options_it_is_timms_resnet_18_with_the_same_weights(info_of):
    torch.manual_seed(3)
    ours = resnet.build(info_of(3, 32, num_classes=1000))[1].state_dict()
    torch.manual_seed(3)
    theirs = Timm(BasicBlock, (2, 2, 2, 2), num_classes=1000).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert sum(value.numel() for key, value in ours.items() if "running" not in key and "num_b" not in key) == 11689512


def test_bottlenecks_make_resnet_50(info_of):
    with torch.device("meta"):
        network = resnet.build(info_of(3, 32, num_classes=1000), layers=[3, 4, 6, 3], block="bottleneck")
    assert sum(p.numel() for p in network.parameters()) == 25557032


@pytest.mark.parametrize("kind", ["basic", "bottleneck", "preactivation"])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_residual_block_begins_as_the_identity(info_of, kind, norm):
    network = resnet.build(info_of(3, 16), **TOY | {"layers": [2, 1, 1, 1]}, block=kind, norm=norm).eval()
    block = blocks(network, kind)[1]  # within a group, where no shape changes
    width = 32 if kind == "bottleneck" else 8
    maps = torch.rand(2, width, 4, 4)  # positive, as behind an activation
    assert torch.equal(block(maps), maps)


@pytest.mark.parametrize("kind", ["basic", "bottleneck", "preactivation"])
def test_without_zero_init_a_block_begins_with_both_ways(info_of, kind):
    network = resnet.build(info_of(3, 16), **TOY | {"layers": [2, 1, 1, 1]}, block=kind, zero_init=False).eval()
    maps = torch.rand(2, 32 if kind == "bottleneck" else 8, 4, 4)
    assert not torch.allclose(blocks(network, kind)[1](maps), maps, atol=1e-3)


def test_at_zero_weights_a_plain_block_forgets_its_input_and_a_residual_one_keeps_it():
    maps, answers = torch.rand(2, 8, 4, 4), {}
    for kind in ("plain", "basic", "preactivation"):
        block = resnet.BLOCKS[kind](8, 8, act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d).eval()
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        answers[kind] = block(maps)
    assert not answers["plain"].any()
    assert torch.equal(answers["basic"], maps)
    assert torch.equal(answers["preactivation"], maps)


def test_plain_and_basic_differ_by_the_shortcuts_alone(info_of):
    plain, basic = (resnet.build(info_of(3, 16), **TOY, block=kind) for kind in ("plain", "basic"))
    keys = {key for key in basic.state_dict() if "downsample" not in key}
    assert set(plain.state_dict()) == keys
    assert all(not scales.eq(0).all() for key, scales in plain.state_dict().items() if key.endswith("bn2.weight"))


def test_preactivation_normalises_before_each_convolution_and_once_at_the_end(info_of):
    network = resnet.build(info_of(3, 16), **TOY, block="preactivation")[1]
    block = blocks(network, "preactivation")[0]
    maps, seen = torch.rand(2, 64, 4, 4), []
    for layer in (block.bn1, block.conv1, block.bn2, block.conv2):
        layer.register_forward_hook(lambda module, *_: seen.append(type(module).__name__))
    block(maps)
    assert seen == ["BatchNorm2d", "Conv2d", "BatchNorm2d", "Conv2d"]
    assert [type(module).__name__ for module in network.layer4][-2:] == ["BatchNorm2d", "ReLU"]
    assert isinstance(network.bn1, nn.Identity)


def test_stochastic_depth_leaves_later_blocks_out_more_often(info_of):
    network = resnet.build(info_of(3, 16), **TOY, stochastic_depth=0.4)
    rates = [module.rate for module in network.modules() if isinstance(module, parts.StochasticDepth)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ParamsError, match="a plain block cannot be left out"):
        resnet.build(info_of(3, 16), **TOY, block="plain", stochastic_depth=0.1)


def test_other_norms_and_activations_take_all_places(info_of):
    network = resnet.build(info_of(3, 16), **TOY, norm="group", activation="gelu")
    kinds = {type(module) for module in network.modules()}
    assert nn.GroupNorm in kinds
    assert nn.GELU in kinds
    assert not kinds & {nn.BatchNorm2d, nn.ReLU}
    with pytest.raises(ParamsError, match="activation 'maxout': halves the channels"):
        resnet.build(info_of(3, 16), **TOY, activation="maxout")
