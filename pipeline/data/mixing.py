"""Augmentations that take several samples: mosaic, copy-paste, mixup.

Each is a step of a policy: called with a sample, as many partners as it asks for, and the random numbers of one copy.
A store holds one class for each image and each pixel, so a step refuses a dataset whose truth it would blend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pipeline.data.geometry import VOID, areas_of, blanked, composed, moved
from pipeline.ops.masks import boxes_of
from pipeline.structures import IGNORE, DatasetInfo, Objects, Sample, Segments

ONLINE = "fix: mix batches instead, by training.online.mixup of a run"


@dataclass(frozen=True)
class Mix(ABC):
    """A step over several samples.

    Attributes:
        p: probability of the step, 0..1.
        num_partners: samples that it takes besides the first.
    """

    p: float
    num_partners: ClassVar[int] = 1

    @abstractmethod
    def refusal(self, info: DatasetInfo) -> str | None:
        """Why the dataset cannot be mixed so, and what to do; None where it can."""

    @abstractmethod
    def __call__(
        self,
        sample: Sample,
        partners: Sequence[Sample],
        info: DatasetInfo,
        rng: np.random.Generator,
        min_visibility: float,
    ) -> Sample:
        """The mixed sample, as large as the first one.

        Args:
            sample, partners: read with their masks.
            info: of the dataset.
            rng: of this copy.
            min_visibility: share of an object that must be left to keep it.
        """


@dataclass(frozen=True)
class Mosaic(Mix):
    """Four samples around a point of the image (Bochkovskiy et al. 2020, YOLOv4, section 3.3).

    Each fills its quarter with a random crop of itself; the point lies in the middle half of the image.

    Attributes:
        scale: least and most share of a sample's area that its crop takes, 0..1.
    """

    scale: tuple[float, float]
    num_partners: ClassVar[int] = 3

    def refusal(self, info: DatasetInfo) -> str | None:
        """A class of the whole image is not that of a mosaic."""
        told = sorted({"classification", "regression"} & set(info.tasks))
        return f"a mosaic of four images has no {told[0]} truth of its own; {ONLINE}" if told else None

    def __call__(
        self,
        sample: Sample,
        partners: Sequence[Sample],
        info: DatasetInfo,
        rng: np.random.Generator,
        min_visibility: float,
    ) -> Sample:
        """Left above, right above, left below, right below."""
        import albumentations

        height, width = sample.image.shape[:2]
        middle_y, middle_x = (max(1, int(side * rng.uniform(0.25, 0.75))) for side in (height, width))
        rows = [slice(0, middle_y), slice(middle_y, max(height, middle_y + 1))]
        columns = [slice(0, middle_x), slice(middle_x, max(width, middle_x + 1))]
        size = rows[1].stop, columns[1].stop
        mosaic = _blank(sample, size)
        for index, tile in enumerate((sample, *partners)):
            window = rows[index // 2], columns[index % 2]
            tile_height, tile_width = (side.stop - side.start for side in window)
            ratio = tile_width / tile_height
            crop = albumentations.RandomResizedCrop(
                (tile_height, tile_width), scale=self.scale, ratio=(ratio * 3 / 4, ratio * 4 / 3)
            )
            cropped = _moved_by([crop], tile, info, rng, min_visibility)
            front = np.zeros(size, bool)
            front[window] = True
            placed = _placed(cropped, window[0].start, window[1].start, size)
            mosaic = overlaid(mosaic, placed, front, info, min_visibility)
        return mosaic


@dataclass(frozen=True)
class CopyPaste(Mix):
    """Objects of another sample, cut out along their masks, on top of the first (Ghiasi et al. 2021).

    The other sample is mirrored at random, scaled and moved before; edges are not blurred, which the paper found
    to make no difference.

    Attributes:
        max_objects: most objects that are pasted; at least one, where there are any.
        scale: least and most factor of size.
    """

    max_objects: int
    scale: tuple[float, float]

    def refusal(self, info: DatasetInfo) -> str | None:
        """It needs masks, and makes a class of the whole image untrue."""
        if "instance" not in info.tasks:
            return f"only objects with masks can be pasted, and {info.name} has none; fix: choose another preset"
        told = sorted({"classification", "regression"} & set(info.tasks))
        return (
            f"pasted objects make the {told[0]} truth of an image untrue; fix: choose another preset" if told else None
        )

    def __call__(
        self,
        sample: Sample,
        partners: Sequence[Sample],
        info: DatasetInfo,
        rng: np.random.Generator,
        min_visibility: float,
    ) -> Sample:
        """Pixels, masks, label map and panoptic map of the pasted objects are those of their own sample."""
        import albumentations

        height, width = sample.image.shape[:2]
        transforms = [
            albumentations.HorizontalFlip(p=0.5),
            albumentations.Affine(scale=self.scale, translate_percent=(-0.2, 0.2), keep_ratio=True, p=1.0),
            albumentations.PadIfNeeded(height, width, position="random"),
            albumentations.RandomCrop(height, width),
        ]
        other = _moved_by(transforms, partners[0], info, rng, min_visibility)
        objects = other.objects
        assert objects is not None
        assert objects.masks is not None
        candidates = np.flatnonzero(~objects.iscrowd)
        if not len(candidates):
            return sample
        num = int(rng.integers(1, min(self.max_objects, len(candidates)) + 1))
        chosen = np.sort(rng.choice(candidates, num, replace=False))
        pasted = replace(other, objects=_taken(objects, chosen))
        return overlaid(sample, pasted, objects.masks[chosen].any(0), info, min_visibility)


@dataclass(frozen=True)
class Mixup(Mix):
    """Two samples blended, with the objects of both (Zhang et al. 2018; for detectors Zhang et al. 2019).

    A target of regression is blended alike; a class would need shares, which a store does not hold.

    Attributes:
        alpha: both parameters of the Beta law of the first sample's share.
    """

    alpha: float

    def refusal(self, info: DatasetInfo) -> str | None:
        """Blended classes, of images or of pixels, cannot be stored as one."""
        told = sorted({"classification", "semantic", "panoptic"} & set(info.tasks))
        return f"the {told[0]} truth of two blended images is not one class; {ONLINE}" if told else None

    def __call__(
        self,
        sample: Sample,
        partners: Sequence[Sample],
        info: DatasetInfo,
        rng: np.random.Generator,
        min_visibility: float,
    ) -> Sample:
        """The second sample is stretched to the size of the first."""
        import albumentations

        share = float(rng.beta(self.alpha, self.alpha))
        resize = albumentations.Resize(*sample.image.shape[:2])
        other = _moved_by([resize], partners[0], info, rng, min_visibility)
        blend = share * sample.image.astype(np.float32) + (1 - share) * other.image
        target = sample.target
        if target is not None and other.target is not None:
            target = share * target + (1 - share) * other.target
        objects = _joined(sample.objects, other.objects)
        return replace(sample, image=np.rint(blend).astype(np.uint8), objects=objects, target=target, captions=None)


def overlaid(base: Sample, top: Sample, front: np.ndarray, info: DatasetInfo, min_visibility: float) -> Sample:
    """`base` with the pixels and the truth of `top` where `front`.

    What `front` covers of the objects of `base` is no longer theirs: an object of which less than `min_visibility` is
    left is removed, its pixels become IGNORE and void; a keypoint that was seen is hidden.

    Args:
        base: the sample below.
        top: of the same size; all its objects lie within `front`.
        front: [H, W] bool.
        info: of the dataset.
        min_visibility: share of an object's area.
    """
    objects = base.objects
    if objects is not None and objects.masks is not None and len(objects):
        masks = objects.masks & ~front
        before, areas = areas_of(objects.masks), areas_of(masks)
        kept = (areas > 0) & (areas >= min_visibility * before)
        if not kept.all():
            base = blanked(base, masks[~kept].any(0) & ~masks[kept].any(0), info)
        seen = replace(
            objects, masks=masks, area=areas, boxes=boxes_of(masks), keypoints=_hidden(objects.keypoints, front)
        )
        objects = _taken(seen, np.flatnonzero(kept))
    semantic = base.semantic
    if semantic is not None and top.semantic is not None:
        semantic = np.where(front, top.semantic, semantic)
    segments = base.segments
    if segments is not None and top.segments is not None:
        segments = _overlaid_segments(segments, top.segments, front, info)
    return replace(
        base,
        image=np.where(front[..., None], top.image, base.image),
        objects=_joined(objects, top.objects),
        semantic=semantic,
        segments=segments,
        captions=None,
    )


def _overlaid_segments(base: Segments, top: Segments, front: np.ndarray, info: DatasetInfo) -> Segments:
    """Things of `top` under new ids; its stuff joins the segment of the same class, of which there is one at most."""
    ids = np.where(front, VOID, base.ids)
    is_stuff = [thing < 0 for thing in info.thing_of_semantic]
    of_class = {int(c): int(i) for i, c in zip(base.segment_ids, base.labels, strict=True) if is_stuff[c]}
    labels = dict(zip(base.segment_ids.tolist(), base.labels.tolist(), strict=True))
    fresh = int(base.segment_ids.max(initial=0))
    for number, label in zip(top.segment_ids.tolist(), top.labels.tolist(), strict=True):
        place = front & (top.ids == number)
        if place.any():
            fresh += 1
            own = of_class.setdefault(label, fresh) if is_stuff[label] else fresh
            ids[place] = own
            labels[own] = label
    present = np.unique(ids)
    present = present[present != VOID].astype(np.int64)
    return Segments(
        ids=ids.astype(np.int32),
        segment_ids=present,
        labels=np.array([labels[number] for number in present.tolist()], np.int64),
    )


def _hidden(keypoints: np.ndarray | None, front: np.ndarray) -> np.ndarray | None:
    if keypoints is None:
        return None
    height, width = front.shape
    columns = keypoints[..., 0].astype(int).clip(0, width - 1)
    rows = keypoints[..., 1].astype(int).clip(0, height - 1)
    hidden = keypoints.copy()
    hidden[..., 2] = np.where(front[rows, columns], np.minimum(keypoints[..., 2], 1), keypoints[..., 2])
    return hidden


def _moved_by(
    transforms: Sequence[object], sample: Sample, info: DatasetInfo, rng: np.random.Generator, min_visibility: float
) -> Sample:
    compose = composed(transforms, min_visibility)
    compose.set_random_seed(int(rng.integers(2**32)))
    return moved(sample, compose, info, min_visibility)


def _taken(objects: Objects, indices: np.ndarray) -> Objects:
    return Objects(
        boxes=objects.boxes[indices],
        labels=objects.labels[indices],
        area=objects.area[indices],
        iscrowd=objects.iscrowd[indices],
        masks=None if objects.masks is None else objects.masks[indices],
        keypoints=None if objects.keypoints is None else objects.keypoints[indices],
    )


def _joined(first: Objects | None, second: Objects | None) -> Objects | None:
    """The objects of both."""
    if first is None or second is None:
        return first or second

    def both(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
        return None if one is None or other is None else np.concatenate([one, other])

    return Objects(
        boxes=np.concatenate([first.boxes, second.boxes]),
        labels=np.concatenate([first.labels, second.labels]),
        area=np.concatenate([first.area, second.area]),
        iscrowd=np.concatenate([first.iscrowd, second.iscrowd]),
        masks=both(first.masks, second.masks),
        keypoints=both(first.keypoints, second.keypoints),
    )


def _blank(sample: Sample, size: tuple[int, int]) -> Sample:
    """A black image without truth, of the kinds of truth that `sample` has."""
    objects = sample.objects
    if objects is not None:
        objects = _taken(objects, np.zeros(0, int))
        if objects.masks is not None:
            objects = replace(objects, masks=np.zeros((0, *size), bool))
    nothing = np.zeros(0, np.int64)
    return replace(
        sample,
        image=np.zeros((*size, sample.image.shape[2]), np.uint8),
        objects=objects,
        semantic=None if sample.semantic is None else np.full(size, IGNORE, np.uint8),
        segments=None if sample.segments is None else Segments(np.full(size, VOID, np.int32), nothing, nothing),
    )


def _placed(tile: Sample, top: int, left: int, size: tuple[int, int]) -> Sample:
    """A sample at a place of a larger image."""
    height, width = tile.image.shape[:2]
    window = slice(top, top + height), slice(left, left + width)
    placed = _blank(tile, size)
    placed.image[window] = tile.image
    if tile.semantic is not None and placed.semantic is not None:
        placed.semantic[window] = tile.semantic
    if tile.segments is not None and placed.segments is not None:
        placed.segments.ids[window] = tile.segments.ids
        placed.segments = replace(placed.segments, segment_ids=tile.segments.segment_ids, labels=tile.segments.labels)
    objects = tile.objects
    if objects is None:
        return placed
    masks, keypoints = objects.masks, objects.keypoints
    if masks is not None:
        masks = np.zeros((len(objects), *size), bool)
        masks[(slice(None), *window)] = objects.masks
    if keypoints is not None:
        shift = np.array([left, top, 0], np.float32)
        keypoints = np.where(keypoints[..., 2:] > 0, keypoints + shift, keypoints)
    boxes = objects.boxes + np.array([left, top, left, top], np.float32)
    placed.objects = replace(objects, boxes=boxes, masks=masks, keypoints=keypoints)
    return placed
