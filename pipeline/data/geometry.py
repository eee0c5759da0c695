"""Moves all truth of a sample along with its pixels: labels, boxes, masks, label maps, panoptic maps, keypoints."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.ops.masks import boxes_of
from pipeline.structures import IGNORE, DatasetInfo, Objects, Sample, Segments

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the network for a newer version
# its import goes without this half, which gives tensors and loads torch, where that fails: two seconds in each process
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]

if TYPE_CHECKING:
    from albumentations import Compose

VOID = 0

MOVING = (
    "Affine", "CenterCrop", "Crop", "D4", "HorizontalFlip", "LongestMaxSize", "Pad", "PadIfNeeded", "Perspective",
    "RandomCrop", "RandomResizedCrop", "RandomRotate90", "RandomScale", "Resize", "Rotate", "SafeRotate",
    "SmallestMaxSize", "Transpose", "VerticalFlip",
)  # fmt: skip
"""Transforms that give a mask's pixel the value of another of its pixels, or their `fill_mask`."""


def composed(transforms: Sequence[object], min_visibility: float) -> Compose:
    """Transforms of albumentations, one after the other, over all that `moved` gives them.

    Args:
        transforms: of albumentations' classes.
        min_visibility: share of a box that must stay in the image, for objects without masks.
    """
    import albumentations

    with warnings.catch_warnings():
        # said of a policy that moves nothing, whose boxes and keypoints rightly stay as they are
        warnings.filterwarnings("ignore", "Got processor for", UserWarning)
        return albumentations.Compose(
            list(transforms),
            bbox_params=albumentations.BboxParams(
                format="pascal_voc", label_fields=["box_indices"], min_visibility=min_visibility, clip=True
            ),
            keypoint_params=albumentations.KeypointParams(
                format="xy", label_fields=["point_indices"], remove_invisible=False
            ),
        )


def moved(sample: Sample, transforms: Compose, info: DatasetInfo, min_visibility: float) -> Sample:
    """A sample under transforms of albumentations, its random numbers as they are set.

    - Instance masks, the semantic and the panoptic map move with the pixels; boxes are the tight boxes of the masks
      or, without masks, the upright boxes around the transformed ones.
    - An object of which less than `min_visibility` is left is removed; its pixels become IGNORE and void.
    - So do pixels that came from outside the image or were cut out.
    - In a mirror image keypoints named left and right change places, as a left hand becomes a right one.
    - Captions are kept only where nothing moved and no object was lost: "left of" is not true in a mirror.

    Args:
        sample: read with its masks.
        transforms: made by `composed`.
        info: of the dataset.
        min_visibility: share of an object's area, scaled as the image is, that must be left to keep it.
    """
    height, width = sample.image.shape[:2]
    objects = sample.objects
    if objects is None and sample.semantic is None and sample.segments is None and sample.captions is None:
        # its own check of these fields wants them to be there
        image = transforms(image=sample.image, box_indices=[], point_indices=[])["image"]
        return replace(sample, image=np.ascontiguousarray(image.reshape(*image.shape[:2], -1)))
    has_masks = objects is not None and objects.masks is not None
    # a lattice over the image, to see how it moved
    lattice = [[x, y] for y in (0.0, height / 2, height) for x in (0.0, width / 2, width)]
    keypoints = objects.keypoints if objects is not None else None
    points = np.array(lattice, np.float32)
    if keypoints is not None:
        points = np.concatenate([points, keypoints[..., :2].reshape(-1, 2)])
    boxes = objects.boxes if objects is not None and not has_masks else np.zeros((0, 4), np.float32)
    in_bits = keeps_bits(transforms.transforms)
    result = transforms(
        image=sample.image,
        masks=_layers(sample, in_bits=in_bits),
        bboxes=boxes,
        box_indices=np.arange(len(boxes)),
        # albumentations' keypoints are indices of pixels: the middle of the first pixel is 0
        keypoints=points - 0.5,
        point_indices=np.arange(len(points)),
    )
    image = result["image"].reshape(*result["image"].shape[:2], -1)
    places = np.full((len(points), 2), np.nan)
    places[np.asarray(result["point_indices"], int)] = np.asarray(result["keypoints"]).reshape(-1, 2) + 0.5
    scale, still = _motion(points[: len(lattice)], places[: len(lattice)])
    still &= image.shape == sample.image.shape

    num_masks = len(objects.masks) if objects is not None and objects.masks is not None else 0
    masks, layers = _parted(np.asarray(result["masks"]), 1 + num_masks, in_bits=in_bits)
    valid, masks = masks[0], masks[1:]
    kept, lost = np.zeros(0, bool), None
    if objects is not None:
        if objects.masks is not None:
            areas, expected = areas_of(masks), areas_of(objects.masks) * abs(scale)
            kept = (areas > 0) & (areas >= min_visibility * expected)
            boxes = boxes_of(masks)
            if not kept.all():
                lost = np.asarray(masks[~kept].any(0) & ~masks[kept].any(0))
        else:
            boxes, kept = np.zeros((len(objects), 4), np.float32), np.zeros(len(objects), bool)
            indices = np.asarray(result["box_indices"], int)
            # albumentations keeps boxes as shares of the image; the way back leaves noise
            boxes[indices] = np.round(np.asarray(result["bboxes"]).reshape(-1, 4), 3)
            kept[indices] = True
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            kept &= areas > 0
        objects = Objects(
            boxes=boxes[kept],
            labels=objects.labels[kept],
            area=areas[kept].astype(np.float32),
            iscrowd=objects.iscrowd[kept],
            masks=(masks if kept.all() else masks[kept]) if has_masks else None,
            keypoints=None
            if keypoints is None
            else _moved_keypoints(keypoints, places[len(lattice) :], valid, info, mirrored=scale < 0)[kept],
        )
    semantic, segments = sample.semantic, sample.segments
    if semantic is not None:
        semantic, layers = layers[0].astype(np.uint8), layers[1:]
        semantic[~valid] = IGNORE
    if segments is not None:
        segments = _segments(segments, np.where(valid, layers[0], 0).astype(np.int64))
    copy = replace(
        sample,
        image=np.ascontiguousarray(image),
        objects=objects,
        semantic=semantic,
        segments=segments,
        captions=sample.captions if still and kept.all() else None,
    )
    return copy if lost is None else blanked(copy, lost, info)


def blanked(sample: Sample, lost: np.ndarray, info: DatasetInfo) -> Sample:
    """The sample with IGNORE and void in place of things at the pixels `lost`, [H, W] bool; stuff stays."""
    is_thing = np.zeros(256, bool)
    is_thing[: len(info.thing_of_semantic)] = np.array(info.thing_of_semantic, int) >= 0
    semantic, segments = sample.semantic, sample.segments
    if semantic is not None:
        semantic = np.where(lost & is_thing[semantic], IGNORE, semantic).astype(np.uint8)
    if segments is not None:
        places = places_of(segments)
        of_thing = np.concatenate([[False], is_thing[segments.labels]])
        segments = _segments(segments, np.where(lost & of_thing[places], 0, places))
    return replace(sample, semantic=semantic, segments=segments)


def _motion(before: np.ndarray, after: np.ndarray) -> tuple[float, bool]:
    """By which factor an area grew, negative in a mirror, and whether nothing moved; from points [N, 2] as found."""
    found = np.isfinite(after).all(1)
    start = before[found] - before[found].mean(0) if found.any() else before[found]
    if np.linalg.matrix_rank(start) < 2:  # too much was cut out to tell
        return 1.0, False
    linear = np.linalg.lstsq(start, after[found] - after[found].mean(0), rcond=None)[0]
    return float(np.linalg.det(linear)), bool(found.all() and np.allclose(after, before, atol=1e-3))


def areas_of(masks: np.ndarray) -> np.ndarray:
    """[M] float32, the number of pixels of each of [M, H, W] bool masks."""
    return np.array([np.count_nonzero(mask) for mask in masks], np.float32)  # with axes NumPy counts many times slower


def keeps_bits(transforms: Iterable[Any]) -> bool:
    """Whether transforms of albumentations move whole values of masks, so that eight masks can be moved as one."""
    import albumentations

    return all(
        isinstance(step, albumentations.ImageOnlyTransform)
        or (type(step).__name__ in MOVING and not np.any(getattr(step, "fill_mask", 0)) and not blends_masks([step]))
        for step in _single(transforms)
    )


def blends_masks(transforms: Iterable[Any]) -> bool:
    """Whether transforms of albumentations give masks values between theirs, which are numbers of other classes."""
    import cv2

    return any(
        getattr(step, "mask_interpolation", cv2.INTER_NEAREST) not in (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
        or getattr(step, "area_for_downscale", None) == "image_mask"
        for step in _single(transforms)
    )


def _single(transforms: Iterable[Any]) -> Iterator[Any]:
    """All transforms, those within others too."""
    import albumentations

    for step in transforms:
        if isinstance(step, albumentations.BaseCompose):
            yield from _single(step.transforms)
        else:
            yield step


def _packed(masks: Sequence[np.ndarray]) -> np.ndarray:
    """[M, H, W] bool as [ceil(M / 8), H, W] uint8, a bit for each."""
    packed = np.zeros((-(-len(masks) // 8), *masks[0].shape), np.uint8)
    for index, mask in enumerate(masks):
        packed[index // 8] |= mask.view(np.uint8) << np.uint8(index % 8)
    return packed


def _parted(layers: np.ndarray, num: int, *, in_bits: bool) -> tuple[np.ndarray, np.ndarray]:
    """The first `num` of what `_layers` gave as [num, H, W] bool, and the others."""
    if not in_bits:
        first = layers[:num]
        return (first.view(bool) if first.dtype == np.uint8 and first.flags.c_contiguous else first != 0), layers[num:]
    masks = np.empty((num, *layers.shape[1:]), bool)
    for index, mask in enumerate(masks):
        np.not_equal(layers[index // 8].astype(np.uint8, copy=False) & np.uint8(1 << index % 8), 0, out=mask)
    return masks, layers[-(-num // 8) :]


def _layers(sample: Sample, *, in_bits: bool) -> np.ndarray:
    """What moves as a mask, in one stack: where the image is, instance masks, semantic map, place of the segment."""
    masks = [np.ones(sample.image.shape[:2], bool)]
    if sample.objects is not None and sample.objects.masks is not None:
        masks += list(sample.objects.masks)
    layers = [_packed(masks) if in_bits else np.stack(masks).view(np.uint8)]
    if sample.semantic is not None:
        layers.append(sample.semantic[None])
    if sample.segments is not None:
        places = places_of(sample.segments)
        # nearest-neighbour interpolation in float32 is exact for whole numbers below 2**24
        few = len(sample.segments.segment_ids) < 256
        layers.append(places[None].astype(np.uint8 if few else np.float32))
    return np.concatenate(layers)


def places_of(segments: Segments) -> np.ndarray:
    """[H, W] int64, for each pixel 1 + the place of its segment in the list, 0 where void."""
    places = np.zeros(segments.ids.shape, np.int64)
    for place, number in enumerate(segments.segment_ids.tolist(), 1):
        places[segments.ids == number] = place
    return places


def _segments(segments: Segments, places: np.ndarray) -> Segments:
    """Those of the segments that occur in `places`, [H, W] int64 as of `places_of`."""
    counts = np.bincount(places.ravel(), minlength=len(segments.segment_ids) + 1)
    occurring = np.flatnonzero(counts[1:])
    return Segments(
        ids=np.concatenate([[VOID], segments.segment_ids]).astype(np.int32)[places],
        segment_ids=segments.segment_ids[occurring],
        labels=segments.labels[occurring],
    )


def _moved_keypoints(
    keypoints: np.ndarray, places: np.ndarray, valid: np.ndarray, info: DatasetInfo, *, mirrored: bool
) -> np.ndarray:
    """[M, P, 3] at the moved places; absent (all zero) where they were, where they left the image or were cut out."""
    height, width = valid.shape
    places = places.reshape(*keypoints.shape[:2], 2)
    inside = (places >= 0).all(-1) & (places[..., 0] < width) & (places[..., 1] < height)
    seen = inside & (keypoints[..., 2] > 0)
    result = np.where(seen[..., None], np.concatenate([places, keypoints[..., 2:]], axis=-1), 0).astype(np.float32)
    return result[:, mirror_order(info.keypoints)] if mirrored else result


def mirror_order(names: Sequence[str]) -> list[int]:
    """For each keypoint the one that takes its place in a mirror: left_eye and right_eye, left and right change.

    >>> mirror_order(["nose", "left_eye", "right_eye"])
    [0, 2, 1]
    """
    swap = {"left": "right", "right": "left"}
    others = ["_".join(swap.get(word, word) for word in name.split("_")) for name in names]
    return [list(names).index(other) if other in names else index for index, other in enumerate(others)]
