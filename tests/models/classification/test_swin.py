"""Which tokens see which: a token's answer is held against a change of every other token of the stage."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.classification import swin

SIDE, WINDOW = 8, 4


def seen(block, row, column):
    """[SIDE, SIDE] bool, the tokens on which the block's answer at a place depends."""
    tokens = torch.randn(1, SIDE, SIDE, block.dim, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(tokens)[0, row, column].square().sum(), tokens)
    return gradient[0].abs().sum(2) > 1e-20  # the mask leaves exp(-100) of what it hides


def area(top, bottom, left, right):
    found = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    found[top:bottom, left:right] = True
    return found


def blocks(info, **options):
    model = swin.build(info, patch=1, width=8, depths=[2], heads=[2], window=WINDOW, **options).eval()
    return [module for module in model.modules() if isinstance(module, SwinTransformerBlock)]


def test_windows_are_apart_and_shifted_ones_straddle_their_borders(info_of):
    plain, shifted = blocks(info_of(1, SIDE))
    assert torch.equal(seen(plain, 3, 3), area(0, 4, 0, 4))
    assert torch.equal(seen(plain, 4, 3), area(4, 8, 0, 4))
    assert torch.equal(seen(shifted, 3, 3), area(2, 6, 2, 6))  # shifted by two: rows and columns 2 to 5 are one window


def test_the_mask_keeps_the_two_ends_of_the_image_apart(info_of):
    _, shifted = blocks(info_of(1, SIDE))
    # rolled by two, rows 6, 7, 0, 1 share a window; only those that are neighbours in the image see each other
    assert torch.equal(seen(shifted, 0, 0), area(0, 2, 0, 2))
    assert torch.equal(seen(shifted, 7, 7), area(6, 8, 6, 8))
    assert torch.equal(seen(shifted, 0, 3), area(0, 2, 2, 6))
    shifted.attn_mask = None
    assert seen(shifted, 0, 0)[7, 7]  # without it, they do


def test_without_shifts_no_window_sees_another(info_of):
    for block in blocks(info_of(1, SIDE), shifted=False):
        assert torch.equal(seen(block, 3, 3), area(0, 4, 0, 4))


@pytest.mark.parametrize(("channels", "side", "patch"), [(1, 8, 1), (3, 32, 2)])
def test_tokens_merge_to_half_the_side_and_twice_the_channels(info_of, channels, side, patch):
    model = swin.build(info_of(channels, side), patch=patch, width=8, depths=[1, 2], heads=[2, 4], window=4).eval()
    images = torch.rand(2, channels, side, side)
    assert model[1].forward_features(images).shape == (2, side // patch // 2, side // patch // 2, 16)
    assert model(images).shape == (2, 10)


def test_what_does_not_divide_is_told(info_of):
    with pytest.raises(PipelineError, match=r"sides that are multiples of 8 \(\[12, 12\]\); fix: training.image_size"):
        swin.build(info_of(1, 12), patch=4, depths=[1, 1], heads=[1, 1])
    with pytest.raises(ParamsError, match=r"heads: \[2\]; fix: one number for each of depths \[1, 1\]"):
        swin.build(info_of(1, 8), depths=[1, 1], heads=[2])
    with pytest.raises(ParamsError, match="96 channels do not fall into 5 heads"):
        swin.build(info_of(1, 8), depths=[1, 1], heads=[3, 5])
