import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ParamsError
from pipeline.models.classification import shufflenet


@given(groups=st.integers(1, 6), each=st.integers(1, 6))
def test_the_shuffle_is_a_bijection_that_gives_every_group_maps_of_all(groups, each):
    order = shufflenet.Shuffle(groups)(torch.arange(groups * each).view(1, -1, 1, 1)).flatten().tolist()
    assert sorted(order) == list(range(groups * each))
    for start in range(0, groups * each - groups + 1, groups):  # neighbours come from each group in turn
        assert [channel // each for channel in order[start : start + groups]] == list(range(groups))


def test_the_shuffle_by_hand():
    maps = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 3)
    out = shufflenet.Shuffle(2)(maps)
    assert out[0, :, 0, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert out.shape == maps.shape


def test_parameters_of_table_1_for_three_groups(info_of):
    with torch.device("meta"):
        network = shufflenet.build(info_of(3, 224, num_classes=1000))
        maps = network[:-1](torch.zeros(1, 3, 224, 224))
    assert sum(p.numel() for p in network.parameters()) == 1865728  # the paper: 1.9 million
    assert maps.shape == (1, 960, 7, 7)


@pytest.mark.parametrize("shuffle", [True, False])
def test_with_the_shuffle_a_unit_mixes_its_groups(info_of, shuffle):
    network = shufflenet.build(
        info_of(1, 16), layers=[1, 1, 1], channels=[24, 48, 96], stem=8, groups=2, small_stem=True, shuffle=shuffle
    ).eval()
    unit = [module for module in network.modules() if isinstance(module, shufflenet.Unit)][1]
    maps = torch.rand(1, 24, 6, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(unit.branch(maps)[:, :12].square().sum(), maps)
    sees = gradient.abs().sum((0, 2, 3)) > 0
    assert sees[:12].any()
    assert sees[12:].any() == shuffle


def test_channels_that_shrink_or_do_not_fall_into_groups_are_told(info_of):
    with pytest.raises(ParamsError, match=r"channels of stage 1 less those before: \[-4\]"):
        shufflenet.build(info_of(3, 32), channels=[20, 40, 80])
    with pytest.raises(ParamsError, match="channels do not fall into 3 groups"):
        shufflenet.build(info_of(3, 32), channels=[40, 80, 160])
