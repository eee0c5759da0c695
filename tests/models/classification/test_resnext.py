import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.classification import resnext


def test_resnext_50_has_the_papers_parameters(info_of):
    with torch.device("meta"):
        network = resnext.build(info_of(3, 224, num_classes=1000))
    assert sum(p.numel() for p in network.parameters()) == 25028904


def grouped(cardinality):
    return resnext.Block(8, 2, 16, cardinality, 1, "batch", "relu").eval().paths[0]


def test_a_convolution_in_groups_has_so_many_times_fewer_weights():
    assert [grouped(g).weight.numel() for g in (1, 4, 16)] == [16 * 16 * 9, 16 * 16 * 9 // 4, 16 * 16 * 9 // 16]


def test_paths_do_not_see_each_other():
    maps = torch.randn(1, 16, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(grouped(4)(maps)[:, 4:8].sum(), maps)
    sees = gradient.abs().sum((0, 2, 3)) > 0
    assert sees.tolist() == [False] * 4 + [True] * 4 + [False] * 8


def test_a_block_equals_the_sum_of_its_paths():
    # figure 3: (a) paths that are added equal (c) one convolution in groups
    block = resnext.Block(8, 2, 12, 3, 1, "none", "relu").eval()
    maps = torch.rand(2, 8, 5, 5)
    (narrow, _), (paths, _), (wide,) = block.narrow, block.paths, block.wide
    total = wide.bias.view(1, -1, 1, 1)
    for path in range(3):
        part = slice(4 * path, 4 * path + 4)
        inner = torch.conv2d(maps, narrow.weight[part], narrow.bias[part]).relu()
        inner = torch.conv2d(inner, paths.weight[part], paths.bias[part], padding=1).relu()
        total = total + torch.conv2d(inner, wide.weight[:, part])
    torch.testing.assert_close(block(maps), (maps + total).relu())


def test_wrong_numbers_are_told(info_of):
    with pytest.raises(ParamsError, match="resnext cardinality and path_width"):
        resnext.build(info_of(3, 32), cardinality=0)
    with pytest.raises(ParamsError, match=r"resnext layers: \[1, 1\]; fix: write 4 numbers"):
        resnext.build(info_of(3, 32), layers=[1, 1])
