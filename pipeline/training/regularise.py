"""Light augmentation of a whole batch during training, with every annotation kept right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.structures import IGNORE, Batch


def augment_batch(batch: Batch, online: Any, num_classes: int, generator: torch.Generator) -> Batch:
    """Flip, then crop, then mixup, each with the strength that `training.online` gives.

    Args:
        batch: on the CPU.
        online: `flip` (probability), `crop` (largest shift as a share of the side) and `mixup` (alpha of its Beta law).
        num_classes: K.
        generator: source of all random numbers.
    """
    if online.flip > 0:
        batch = flip(batch, torch.rand(len(batch.images), generator=generator) < online.flip)
    if online.crop > 0:
        shifts = torch.rand(len(batch.images), 2, generator=generator) * 2 - 1
        batch = shift(batch, shifts * online.crop)
    if online.mixup > 0 and batch.labels is not None:
        share = float(torch._sample_dirichlet(torch.full((2,), online.mixup), generator=generator)[0])
        batch = mixup(batch, torch.randperm(len(batch.images), generator=generator), share, num_classes)
    return batch


def flip(batch: Batch, flipped: Tensor) -> Batch:
    """Mirrors the chosen images left to right, with boxes and label maps.

    Args:
        batch: any batch.
        flipped: [B] bool.
    """
    chosen = flipped.view(-1, 1, 1, 1)
    width = batch.images.shape[3]
    boxes = batch.boxes
    if boxes is not None:
        sign = torch.tensor([-1.0, 1.0, -1.0, 1.0])
        offset = torch.tensor([width, 0.0, width, 0.0])
        boxes = [(b[:, [2, 1, 0, 3]] * sign + offset) if f else b for b, f in zip(boxes, flipped, strict=True)]
    semantic = batch.semantic
    if semantic is not None:
        semantic = torch.where(flipped.view(-1, 1, 1), semantic.flip(2), semantic)
    images = torch.where(chosen, batch.images.flip(3), batch.images)
    return replace(batch, images=images, boxes=boxes, semantic=semantic)


def shift(batch: Batch, shares: Tensor) -> Batch:
    """Moves each image by whole pixels; the border is repeated where it moves away from.

    Boxes move along, are cut at the border and go when nothing is left; a label map is IGNORE where nothing moved in.

    Args:
        batch: any batch.
        shares: [B, 2], shift down and right as shares of H and W.
    """
    height, width = batch.images.shape[2:]
    moves = (shares * torch.tensor([height, width])).round().long()
    sources = torch.arange(height) - moves[:, :1], torch.arange(width) - moves[:, 1:]
    rows, columns = (source.clamp(0, side - 1) for source, side in zip(sources, (height, width), strict=True))
    index = torch.arange(len(moves))[:, None, None], rows[:, :, None], columns[:, None, :]
    images = batch.images.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2)
    semantic = batch.semantic
    if semantic is not None:
        inside = (sources[0] == rows)[:, :, None] & (sources[1] == columns)[:, None, :]
        semantic = torch.where(inside, semantic[index], IGNORE)
    boxes, box_labels = batch.boxes, batch.box_labels
    if boxes is not None and box_labels is not None:
        limits = torch.tensor([width, height, width, height], dtype=torch.float32)
        moved = [b + m.flip(0).repeat(2) for b, m in zip(boxes, moves, strict=True)]
        cut = [b.clamp(min=torch.zeros(4)).minimum(limits) for b in moved]
        kept = [(b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1]) for b in cut]
        boxes = [b[k] for b, k in zip(cut, kept, strict=True)]
        box_labels = [c[k] for c, k in zip(box_labels, kept, strict=True)]
    return replace(batch, images=images, semantic=semantic, boxes=boxes, box_labels=box_labels)


def mixup(batch: Batch, partner: Tensor, share: float, num_classes: int) -> Batch:
    """Blends each image with its partner, and their labels alike (Zhang et al. 2018).

    Args:
        batch: with labels.
        partner: [B], index of each image's partner.
        share: weight of the image itself, 0..1.
        num_classes: K.
    """
    assert batch.labels is not None
    weights = F.one_hot(batch.labels, num_classes).float()
    return replace(
        batch,
        images=share * batch.images + (1 - share) * batch.images[partner],
        label_weights=share * weights + (1 - share) * weights[partner],
    )
