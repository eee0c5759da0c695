"""Test-time augmentation: several views of an image, over which a classifier's answers are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

SHIFT = 1 / 16  # of the side, at least a pixel


def views(images: Tensor, kinds: Sequence[str]) -> Iterator[Tensor]:
    """The images themselves, then their other views; with both kinds ten, as Krizhevsky et al. 2012 (section 4.1) have.

    Args:
        images: [B, C, H, W].
        kinds: `flip`: each view also mirrored left to right; `shift`: also moved by `SHIFT` down, up, right and left,
            the border repeated (the paper cuts five patches out of a larger image).
    """
    moves = [(0, 0)]
    if "shift" in kinds:
        down, right = (max(1, round(side * SHIFT)) for side in images.shape[2:])
        moves += [(down, 0), (-down, 0), (0, right), (0, -right)]
    for move in moves:
        moved = shifted(images, *move)
        yield moved
        if "flip" in kinds:
            yield moved.flip(3)


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """[B, C, H, W] moved by whole pixels, the border repeated where it moves away from."""
    if not (down or right):
        return images
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images[:, :, rows][:, :, :, columns]
