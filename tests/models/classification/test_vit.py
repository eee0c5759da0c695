import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.classification import vit


def shuffled(images, patch, order):
    """The images with their patches, row by row, in another order."""
    side = images.shape[2] // patch
    patches = images.unfold(2, patch, patch).unfold(3, patch, patch).flatten(2, 3)[:, :, order]
    return patches.unflatten(2, (side, side)).permute(0, 1, 2, 4, 3, 5).flatten(4, 5).flatten(2, 3)


@pytest.mark.parametrize(("channels", "side", "patch"), [(1, 8, 2), (3, 32, 8)])
def test_patches_permute_the_tokens_and_only_positions_tell_the_order(info_of, channels, side, patch):
    order = torch.randperm(16)
    images = torch.rand(2, channels, side, side)
    other = shuffled(images, patch, order)
    assert not torch.equal(other, images)
    for positions in ("none", "learned"):
        model = vit.build(info_of(channels, side), patch=patch, width=16, depth=2, heads=2, positions=positions).eval()
        tokens, moved = (model[1].patches(each).flatten(2) for each in (images, other))
        torch.testing.assert_close(moved, tokens[:, :, order], rtol=1e-5, atol=1e-6)
        if positions == "learned":
            nn.init.normal_(model[1].positions)
        apart = (model(images) - model(other)).abs().max()
        assert apart < 1e-5 if positions == "none" else apart > 1e-2


def test_a_patch_becomes_a_token_by_a_linear_map(info_of):
    network = vit.build(info_of(3, 8), patch=4, width=16, depth=1)[1]
    image = torch.rand(1, 3, 8, 8)
    patch = image[0, :, 4:, :4].flatten()  # the third in reading order
    want = network.patches.weight.flatten(1) @ patch + network.patches.bias
    torch.testing.assert_close(network.patches(image).flatten(2)[0, :, 2], want, rtol=1e-5, atol=1e-6)


def test_a_block_is_equations_2_and_3_of_the_paper():
    block = vit.Block(8, 2, 16, dropout=0.0, depth_rate=0.0)
    tokens = torch.randn(2, 5, 8)
    inner = block.attention(block.norm1(tokens)) + tokens
    torch.testing.assert_close(block(tokens), block.mlp(block.norm2(inner)) + inner)
    for parameter in (*block.attention.out.parameters(), *block.mlp[3].parameters()):
        nn.init.zeros_(parameter)
    assert torch.equal(block(tokens), tokens)  # empty branches leave the identity


def test_parameters_of_vit_base_are_counted(info_of):
    # ViT-B/16 at 224: patches 768 * 768 + 768, class token 768, positions 197 * 768, last norm 2 * 768, head 769 * 10,
    # 12 blocks of norms 4 * 768, attention 4 * (768 * 768 + 768), perceptron 2 * 768 * 3072 + 3072 + 768
    want = 768 * 769 + 768 + 197 * 768 + 1536 + 7690 + 12 * (3072 + 4 * 768 * 769 + 2 * 768 * 3072 + 3840)
    with torch.device("meta"):
        model = vit.build(info_of(3, 224), patch=16, width=768, depth=12, heads=12, mlp_ratio=4.0)
    assert sum(parameter.numel() for parameter in model.parameters()) == want == 85_806_346


def test_what_does_not_divide_is_told(info_of):
    with pytest.raises(PipelineError, match=r"patches of 3 pixels in images of \[8, 8\]; fix: training.image_size"):
        vit.build(info_of(1, 8), patch=3)
    with pytest.raises(ParamsError, match="16 channels do not fall into 3 heads"):
        vit.build(info_of(1, 8), width=16, heads=3)
