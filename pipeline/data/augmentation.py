"""Policies of albumentations' transforms that move pixels, boxes, masks, label maps and keypoints together.

A copy depends on (seed, image_id, number of the copy) alone, so neither workers nor order change it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ParamsError, did_you_mean
from pipeline.ops.masks import boxes_of
from pipeline.structures import IGNORE, DatasetInfo, Objects, Sample, Segments

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else its import asks the network for a newer version

if TYPE_CHECKING:
    from albumentations import BasicTransform, Compose

VOID = 0


def compose(transforms: Sequence[Mapping[str, Any]], where: str, min_visibility: float = 0.0) -> Compose:
    """A policy of transforms, one after the other.

    Args:
        transforms: each a mapping of `name` and the arguments, all as albumentations calls them.
        where: their place in params.yaml, such as `augmentations.scenes_varied.transforms`.
        min_visibility: share of a box that must stay in the image, for objects without masks.

    Raises:
        ParamsError: a transform or an argument that albumentations does not know, or a value that it refuses.
    """
    import albumentations

    with warnings.catch_warnings():
        # said of a policy that moves nothing, whose boxes and keypoints rightly stay as they are
        warnings.filterwarnings("ignore", "Got processor for", UserWarning)
        return albumentations.Compose(
            [_transform(dict(entry), f"{where}.{index}") for index, entry in enumerate(transforms)],
            bbox_params=albumentations.BboxParams(
                format="pascal_voc", label_fields=["box_indices"], min_visibility=min_visibility, clip=True
            ),
            keypoint_params=albumentations.KeypointParams(
                format="xy", label_fields=["point_indices"], remove_invisible=False
            ),
        )


def _transform(arguments: dict[str, Any], where: str) -> BasicTransform:
    import albumentations

    choices = {
        name: cls
        for name, cls in vars(albumentations).items()
        if inspect.isclass(cls)
        and issubclass(cls, albumentations.BasicTransform)
        and cls.__module__.startswith("albumentations.augmentations")
    }
    name = arguments.pop("name", None)
    if name not in choices:
        raise ParamsError(f"params.yaml {where}.name: no such transform ({name!r}); {_nearest(str(name), choices)}")
    known = inspect.signature(choices[name].__init__).parameters.keys() - {"self"}
    for key in arguments:
        if key not in known:
            raise ParamsError(f"params.yaml {where}.{key}: unknown argument of {name}; {did_you_mean(key, known)}")
    try:
        return choices[name](**{key: _tuples(value) for key, value in arguments.items()})
    except (ValueError, TypeError) as error:
        fault = _first_fault(error.__cause__ or error)
        raise ParamsError(f"params.yaml {where}: {name} refuses its arguments: {fault}") from None


def _nearest(name: str, choices: Mapping[str, Any]) -> str:
    """The nearest spelling alone where there is one: the choices are more than a hundred."""
    answer, _, rest = did_you_mean(name, choices).partition("choices: ")
    return answer.strip() or f"choices: {rest}"


def _first_fault(error: BaseException) -> str:
    """One line of an error that may be pydantic's."""
    faults = error.errors() if hasattr(error, "errors") else None
    if not faults:
        return " ".join(str(error).split())
    return f"{'.'.join(map(str, faults[0]['loc']))}: {faults[0]['msg']} ({faults[0].get('input')!r})"


def _tuples(value: Any) -> Any:
    """Lists of params.yaml as the tuples that albumentations asks for."""
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return {key: _tuples(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def copy_seed(seed: int, image_id: str, number: int) -> int:
    """The seed of one copy, below 2**32."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{image_id}/{number}".encode()).digest()[:4])


def augmented(
    sample: Sample, policy: Compose, info: DatasetInfo, *, seed: int, number: int, min_visibility: float
) -> Sample:
    """One augmented copy of a sample, all its truth transformed along; its id is `<image_id>~<number>`.

    - Instance masks, the semantic and the panoptic map move with the pixels; boxes are the tight boxes of the masks
      or, without masks, the upright boxes around the transformed ones.
    - An object of which less than `min_visibility` is left is removed; its pixels become IGNORE and void.
    - So do pixels that came from outside the image.
    - In a mirror image keypoints named left and right change places, as a left hand becomes a right one.
    - Captions are kept only where nothing moved and no object was lost: "left of" is not true in a mirror.

    Args:
        sample: read with its masks.
        policy: made by `compose`.
        info: of the dataset.
        seed: of the augmentation.
        number: of the copy, from 1.
        min_visibility: share of an object's area, scaled as the image is, that must be left to keep it.
    """
    height, width = sample.image.shape[:2]
    policy.set_random_seed(copy_seed(seed, sample.image_id, number))
    layers = _layers(sample)
    points = [[0.0, 0.0], [width, 0.0], [0.0, height]]  # of the image, to see how it moved
    keypoints = sample.objects.keypoints if sample.objects is not None else None
    if keypoints is not None:
        points += keypoints[..., :2].reshape(-1, 2).tolist()
    has_boxes = sample.objects is not None and sample.objects.masks is None
    result = policy(
        image=sample.image,
        masks=layers,
        bboxes=sample.objects.boxes if has_boxes and sample.objects is not None else np.zeros((0, 4), np.float32),
        box_indices=np.arange(len(sample.objects) if has_boxes and sample.objects is not None else 0),
        # albumentations' keypoints are indices of pixels: the middle of the first pixel is 0
        keypoints=np.array(points, np.float32) - 0.5,
        point_indices=np.arange(len(points)),
    )
    image = result["image"].reshape(*result["image"].shape[:2], -1)
    moved = np.full((len(points), 2), np.nan)
    moved[np.asarray(result["point_indices"], int)] = np.asarray(result["keypoints"]).reshape(-1, 2) + 0.5
    origin, right, down = moved[:3]
    linear = np.stack([(right - origin) / width, (down - origin) / height])
    determinant = float(np.linalg.det(linear)) if np.isfinite(linear).all() else 1.0
    still = image.shape == sample.image.shape and np.allclose(moved[:3], points[:3], atol=1e-3)

    layers = np.stack(result["masks"])
    valid, layers = layers[0].astype(bool), layers[1:]
    objects, kept = None, np.zeros(0, bool)
    masks = np.zeros((0, *valid.shape), bool)
    if sample.objects is not None:
        num = 0 if sample.objects.masks is None else len(sample.objects)
        masks, layers = layers[:num].astype(bool), layers[num:]
        if sample.objects.masks is not None:
            expected = sample.objects.masks.sum((1, 2)) * abs(determinant)
            areas = masks.sum((1, 2))
            kept = (areas > 0) & (areas >= min_visibility * expected)
            boxes = boxes_of(masks)
        else:
            boxes, kept = np.zeros((len(sample.objects), 4), np.float32), np.zeros(len(sample.objects), bool)
            indices = np.asarray(result["box_indices"], int)
            # albumentations keeps boxes as shares of the image; the way back leaves noise
            boxes[indices] = np.round(np.asarray(result["bboxes"]).reshape(-1, 4), 3)
            kept[indices] = True
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        objects = Objects(
            boxes=boxes[kept],
            labels=sample.objects.labels[kept],
            area=areas[kept].astype(np.float32),
            iscrowd=sample.objects.iscrowd[kept],
            masks=masks[kept] if sample.objects.masks is not None else None,
            keypoints=None
            if keypoints is None
            else _moved_keypoints(keypoints, moved[3:], valid, info, mirrored=determinant < 0)[kept],
        )
    lost = masks[~kept[: len(masks)]].any(0) & ~masks[kept[: len(masks)]].any(0)
    semantic, segments = _moved_maps(sample, list(layers), valid, np.asarray(lost), info)
    name = PurePosixPath(sample.file_name)
    return replace(
        sample,
        image_id=f"{sample.image_id}~{number}",
        file_name=str(name.with_name(f"{name.stem}~{number}.png")),
        image=np.ascontiguousarray(image),
        objects=objects,
        semantic=semantic,
        segments=segments,
        captions=sample.captions if still and kept.all() else None,
    )


def _layers(sample: Sample) -> np.ndarray:
    """What moves as a mask, in one stack: where the image is, instance masks, semantic map, place of the segment."""
    height, width = sample.image.shape[:2]
    layers = [np.ones((height, width), np.uint8)]
    if sample.objects is not None and sample.objects.masks is not None:
        layers += list(sample.objects.masks.astype(np.uint8))
    if sample.semantic is not None:
        layers.append(sample.semantic)
    if sample.segments is not None:
        layers.append(_places(sample.segments))
    # nearest-neighbour interpolation in float32 is exact for whole numbers below 2**24
    dtype = np.uint8 if all(layer.max(initial=0) < 256 for layer in layers) else np.float32
    return np.stack([layer.astype(dtype) for layer in layers])


def _places(segments: Segments) -> np.ndarray:
    """[H, W], for each pixel 1 + the place of its segment in the list, 0 where void."""
    order = np.argsort(segments.segment_ids)
    found = np.searchsorted(segments.segment_ids, segments.ids, sorter=order)
    places = order[np.minimum(found, len(order) - 1)]
    return np.where(segments.segment_ids[places] == segments.ids, places + 1, 0)


def _moved_maps(
    sample: Sample, layers: list[np.ndarray], valid: np.ndarray, lost: np.ndarray, info: DatasetInfo
) -> tuple[np.ndarray | None, Segments | None]:
    """The semantic and the panoptic map from their moved layers, without what is outside or was of a removed object."""
    is_thing = np.zeros(256, bool)
    is_thing[: len(info.thing_of_semantic)] = np.array(info.thing_of_semantic, int) >= 0
    semantic, segments = None, None
    if sample.semantic is not None:
        semantic = layers.pop(0).astype(np.uint8)
        semantic[~valid | (lost & is_thing[semantic])] = IGNORE
    if sample.segments is not None:
        places = layers.pop(0).astype(np.int64)
        thing_of_place = np.concatenate([[False], is_thing[sample.segments.labels]])
        places[~valid | (lost & thing_of_place[places])] = 0
        occurring = np.unique(places[places > 0]) - 1
        segments = Segments(
            ids=np.concatenate([[VOID], sample.segments.segment_ids])[places].astype(np.int32),
            segment_ids=sample.segments.segment_ids[occurring],
            labels=sample.segments.labels[occurring],
        )
    return semantic, segments


def _moved_keypoints(
    keypoints: np.ndarray, moved: np.ndarray, valid: np.ndarray, info: DatasetInfo, *, mirrored: bool
) -> np.ndarray:
    """[M, P, 3] at the moved places; absent (all zero) where they were, where they left the image or were cut out."""
    height, width = valid.shape
    places = moved.reshape(*keypoints.shape[:2], 2)
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
