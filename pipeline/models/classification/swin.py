"""Swin Transformer (Liu et al. 2021) from timm: attention inside windows, which shift by half from block to block.

It shows how attention becomes affordable and a pyramid: a token looks only at its window, so the cost grows with the
number of tokens and not with its square (equations 1 and 2); every second block cuts the windows half a window further,
so that neighbours across a border meet (section 3.2; `shifted: false` is the foil, whose windows never speak to one
another within a stage); between stages 2x2 tokens merge into one, as maps shrink in a CNN.

The shift is cyclic: a window at the border holds tokens of both ends of the image, and a mask keeps these apart.
"""

from typing import Any

from torch import nn

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.layers import Normalise
from pipeline.structures import DatasetInfo


def build(
    info: DatasetInfo,
    *,
    patch: int = 2,
    width: int = 48,
    depths: list[int] = [2, 2],  # noqa: B006
    heads: list[int] = [3, 6],  # noqa: B006
    window: int = 4,
    shifted: bool = True,
    stochastic_depth: float = 0.1,
) -> nn.Module:
    """[B, C, H, W] -> logits [B, K].

    Args:
        info: gives K, C, the image size, mean and std.
        patch: side of a patch in pixels.
        width: channels of a token of the first stage; each further stage has twice as many.
        depths: blocks of each stage.
        heads: of the attention of each stage.
        window: side of a window in tokens.
        shifted: whether every second block shifts its windows.
        stochastic_depth: chance of the last block's branches to be left out in training.

    Raises:
        PipelineError: the images cannot be cut into patches, or their tokens merged as often as stages ask.
        ParamsError: depths and heads differ in number, or a stage's channels do not fall into its heads.
    """
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock

    if len(depths) != len(heads):
        raise ParamsError(f"classification/swin heads: {heads}; fix: one number for each of depths {depths}")
    for stage, num in enumerate(heads):
        if num < 1 or (width * 2**stage) % num:
            raise ParamsError(
                f"classification/swin heads: {width * 2**stage} channels do not fall into {num} heads; fix: a multiple"
            )
    size, step = info.image_size, patch * 2 ** (len(depths) - 1)
    if size is None or any(side % step for side in size):
        raise PipelineError(
            f"classification/swin: patches of {patch} pixels in {len(depths)} stages need sides that are multiples of "
            f"{step} ({size}); fix: training.image_size or model_params.patch"
        )
    network: Any = SwinTransformer(
        img_size=(size[0], size[1]),
        patch_size=patch,
        in_chans=info.channels,
        num_classes=len(info.classes),
        embed_dim=width,
        depths=tuple(depths),
        num_heads=tuple(heads),
        window_size=window,
        drop_path_rate=stochastic_depth,
    )
    if not shifted:
        blocks: list[Any] = [module for module in network.modules() if isinstance(module, SwinTransformerBlock)]
        for block in blocks:
            block.shift_size, block.attn_mask = (0, 0), None
    return nn.Sequential(Normalise(info.mean, info.std), network)
