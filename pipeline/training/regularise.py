"""Light augmentation of a whole batch during training, with every annotation kept right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.structures import IGNORE, Batch, in_floats


def augment_batch(batch: Batch, online: Any, num_classes: int, generator: torch.Generator) -> Batch:
    """Flip, then crop, then cutout, then mixup or cutmix, each with the strength that `training.online` gives.

    Where both mixup and cutmix are on, each batch has one of them, by a fair coin.

    Args:
        batch: on the CPU.
        online: `flip` (probability), `crop` (largest shift as a share of the side), `cutout` (side of the blanked
            square as a share of the image's shorter side), `mixup` and `cutmix` (alpha of their Beta laws).
        num_classes: K.
        generator: source of all random numbers.
    """
    num, (height, width) = len(batch.images), batch.images.shape[2:]
    if online.flip > 0:
        batch = flip(batch, torch.rand(num, generator=generator) < online.flip)
    if online.crop > 0:
        shifts = torch.rand(num, 2, generator=generator) * 2 - 1
        batch = shift(batch, shifts * online.crop)
    if online.cutout > 0:
        places = (torch.rand(num, 2, generator=generator) * torch.tensor([height, width])).long()
        batch = replace(batch, images=in_floats(batch.images))
        batch = cutout(batch, places, round(online.cutout * min(height, width)))
    if batch.labels is None or not (online.mixup or online.cutmix):
        return batch
    is_cutmix = online.cutmix > 0
    if online.mixup and online.cutmix:
        is_cutmix = bool(torch.rand((), generator=generator) < 0.5)
    alpha = online.cutmix if is_cutmix else online.mixup
    share = float(torch._sample_dirichlet(torch.full((2,), alpha), generator=generator)[0])
    partner = torch.randperm(num, generator=generator)
    if not is_cutmix:
        return mixup(replace(batch, images=in_floats(batch.images)), partner, share, num_classes)
    centre = torch.rand(2, generator=generator).tolist()
    return cutmix(batch, partner, rectangle(share, centre, height, width), num_classes)


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


def cutout(batch: Batch, centres: Tensor, side: int) -> Batch:
    """Blanks a square of each image; what of it lies outside is cut off (DeVries and Taylor 2017, section 3.2).

    Blank is the image's own mean colour; the paper has that of the data set, so that the values of neither move.

    Args:
        batch: any batch; its truth stays as it is.
        centres: [B, 2], row and column in pixels.
        side: of the square, in pixels.
    """
    first = centres - side // 2
    rows, columns = (
        (torch.arange(size) >= start[:, None]) & (torch.arange(size) < start[:, None] + side)
        for size, start in zip(batch.images.shape[2:], first.unbind(1), strict=True)
    )
    blank = (rows[:, :, None] & columns[:, None, :])[:, None]
    return replace(batch, images=torch.where(blank, batch.images.mean((2, 3), keepdim=True), batch.images))


def rectangle(share: float, centre: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
    """The part of an image that cutmix exchanges: 1 - share of its area unless an edge cuts some of that off.

    Args:
        share: of the image that stays, 0..1.
        centre: row and column, each 0..1.
        height, width: of the image.

    Returns:
        top, left, bottom, right in pixels; from bottom and right on it is outside (Yun et al. 2019, appendix A).
    """
    ends = []
    for size, place in zip((height, width), centre, strict=True):
        middle, length = int(place * size), int(size * math.sqrt(1 - share))
        ends.append((max(0, middle - length // 2), min(size, middle - length // 2 + length)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def cutmix(batch: Batch, partner: Tensor, cut: tuple[int, int, int, int], num_classes: int) -> Batch:
    """Puts a rectangle of its partner into each image; labels are mixed by the area that each image has of the result.

    Args:
        batch: with labels.
        partner: [B], index of each image's partner.
        cut: top, left, bottom, right, see `rectangle`.
        num_classes: K.
    """
    assert batch.labels is not None
    top, left, bottom, right = cut
    images = batch.images.clone()
    images[:, :, top:bottom, left:right] = batch.images[partner, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    weights = F.one_hot(batch.labels, num_classes).float()
    return replace(batch, images=images, label_weights=share * weights + (1 - share) * weights[partner])
