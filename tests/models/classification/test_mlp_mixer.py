import pytest
import torch
from torch import nn

from pipeline.errors import PipelineError
from pipeline.models.classification import mlp_mixer


def block(num=4, width=6):
    return mlp_mixer.Block(num, width, 5, 7, dropout=0.0, rate=0.0)


def test_places_are_mixed_alike_in_all_channels_and_channels_alike_in_all_places():
    mixer, patches = block(), torch.randn(2, 4, 6)
    channels, places = torch.randperm(6), torch.randperm(4)
    mixed = mixer.tokens(patches.transpose(1, 2))  # [B, D, N]: one row for each channel
    torch.testing.assert_close(mixer.tokens(patches[:, :, channels].transpose(1, 2)), mixed[:, channels])
    torch.testing.assert_close(mixer.channels(patches[:, places]), mixer.channels(patches)[:, places])


def test_only_the_first_half_carries_across_places():
    mixer, patches = block(), torch.randn(1, 4, 6, requires_grad=True)
    (across,) = torch.autograd.grad(mixer(patches)[0, 0].sum(), patches)
    assert (across[0].abs().sum(1) > 0).all()
    for parameter in mixer.tokens[3].parameters():
        nn.init.zeros_(parameter)
    (alone,) = torch.autograd.grad(mixer(patches)[0, 0].square().sum(), patches)
    assert (alone[0].abs().sum(1) > 0).tolist() == [True, False, False, False]


def test_a_block_is_equation_1_of_the_paper():
    mixer, patches = block(), torch.randn(2, 4, 6)
    first, second = mixer.tokens[0], mixer.tokens[3]
    normed = mixer.norm1(patches)
    columns = [second(nn.functional.gelu(first(normed[:, :, channel]))) for channel in range(6)]
    inner = patches + torch.stack(columns, 2)
    torch.testing.assert_close(mixer(patches), inner + mixer.channels(mixer.norm2(inner)))


@pytest.mark.parametrize(("channels", "side", "patch"), [(1, 8, 2), (3, 32, 4)])
def test_parameters_grow_with_the_places(info_of, channels, side, patch):
    num, width, hidden = (side // patch) ** 2, 16, 8
    model = mlp_mixer.build(
        info_of(channels, side), patch=patch, width=width, depth=3, token_width=hidden, channel_width=hidden
    )
    mixers = 3 * (4 * width + 2 * num * hidden + hidden + num + 2 * width * hidden + hidden + width)
    rest = channels * patch**2 * width + width + 2 * width + 10 * width + 10
    assert sum(parameter.numel() for parameter in model.parameters()) == mixers + rest
    assert model(torch.rand(2, channels, side, side)).shape == (2, 10)


def test_images_that_cannot_be_cut_are_told(info_of):
    with pytest.raises(PipelineError, match=r"classification/mlp_mixer: no whole number of patches of 5 pixels"):
        mlp_mixer.build(info_of(1, 8), patch=5)
