import pytest
import torch

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.classification import densenet


def test_a_layer_puts_its_new_maps_beside_the_old_ones():
    layer = densenet.Dense(5, growth=3, dropout=0.0, norm="batch", activation="relu")
    maps = torch.randn(2, 5, 4, 4)
    out = layer(maps)
    assert out.shape == (2, 8, 4, 4)
    assert torch.equal(out[:, :5], maps)
    assert not torch.equal(layer(maps + 1)[:, 5:], out[:, 5:])


def test_densenet_121_has_the_papers_parameters(info_of):
    with torch.device("meta"):
        network = densenet.build(info_of(3, 224, num_classes=1000))
    assert sum(p.numel() for p in network.parameters()) == 7978856


def test_channels_grow_within_a_block_and_are_halved_between_two(info_of):
    network = densenet.build(info_of(1, 8), layers=[2, 3], growth=4, small_stem=True)
    widths, maps = [], torch.rand(2, 1, 8, 8)
    for module in network[:-1]:
        maps = module(maps)
        widths.append(maps.shape[1])
    # the stem's 8, twice 4 more, half of 16, three times 4 more, the last norm
    assert widths == [1, 8, 12, 16, 8, 12, 16, 20, 20]
    assert maps.shape[2:] == (4, 4)


def test_wrong_options_and_images_are_told(info_of):
    with pytest.raises(ParamsError, match=r"compression: 0\.0"):
        densenet.build(info_of(1, 8), compression=0.0)
    with pytest.raises(ParamsError, match="densenet layers and growth"):
        densenet.build(info_of(1, 8), layers=[])
    with pytest.raises(
        PipelineError, match=r"without small_stem needs images of at least 32 pixels a side \(\[8, 8\]\)"
    ):
        densenet.build(info_of(1, 8))
