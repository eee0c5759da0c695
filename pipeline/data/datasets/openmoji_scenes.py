"""OpenMoji's icons pasted over scikit-image's photographs and textures, with every kind of annotation.

A scene depends on (seed, split, index) alone. The icons of the test split are shown nowhere else, and each split cuts
its backgrounds from its own part of a photograph.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from pipeline.data import openmoji, store
from pipeline.data.openmoji import Icon
from pipeline.data.pool import ordered_map
from pipeline.ops.masks import boxes_of
from pipeline.params import Count
from pipeline.structures import SPLITS, DatasetInfo, Objects, Sample, Segments

Side = Annotated[int, Field(ge=48, le=4096)]
MaxObjects = Annotated[int, Field(ge=1, le=12)]

LICENCE = f"icons: {openmoji.LICENCE}; photographs and textures: CC0, public domain or no known copyright restrictions"
ATTRIBUTION = (
    f"{openmoji.ATTRIBUTION}. Photographs and textures as shipped with scikit-image: coffee (Rachel Michetti), Hubble "
    "eXtreme Deep Field (NASA), coins (Brooklyn Museum), immunohistochemistry (CMMI), retina (Mikael Häggström), "
    "brick and gravel (CC0Textures), grass (linolafett)"
)
STUFF = {"brick": "#c2745a", "grass": "#a3d977", "gravel": "#d6cfc4"}
TINTS = {"brick": "#a65a42", "grass": "#5f8f3a", "gravel": "#8f877b"}  # scikit-image's textures are grey
PHOTOGRAPHS = ("coffee.png", "hubble_deep_field.jpg", "ihc.png", "coins.png", "retina.jpg")
# Where a split cuts, as shares of the longer and of the shorter side; the parts do not overlap
PARTS = {
    "train": ((0.0, 0.5), (0.0, 1.0)),
    "val": ((0.5, 1.0), (0.0, 0.5)),
    "test": ((0.5, 1.0), (0.5, 1.0)),
}
KEYPOINTS = ["top", "right", "bottom", "left", "centre"]
SKELETON = [[0, 4], [1, 4], [2, 4], [3, 4]]
MIN_VISIBLE = 0.6  # share of a silhouette that later icons and the image's edge must leave
MIN_AREA = 0.0015  # share of the image that must be seen of an object: 55 pixels of 192 x 192
OPAQUE = 128  # a pixel is the object's from half coverage on
ATTEMPTS = 20


def prepare(
    folder: Path,
    *,
    seed: int,
    image_size: Side = 192,
    num_train: Count = 640,
    num_val: Count = 80,
    num_test: Count = 160,
    max_objects: MaxObjects = 6,
) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split of the icons and of all scenes.
        image_size: side in pixels.
        num_train: scenes in the train split; num_val and num_test alike.
        num_val: scenes in the val split.
        num_test: scenes in the test split.
        max_objects: most icons in a scene, at least 1.
    """
    icons = openmoji.icons()
    classes = list(openmoji.CLASSES)
    info = DatasetInfo(
        name=folder.name,
        tasks=["detection", "instance", "semantic", "panoptic", "keypoints", "captions"],
        classes=classes,
        channels=3,
        licence=LICENCE,
        attribution=ATTRIBUTION,
        source=f"{openmoji.SOURCE}; package scikit-image, folder skimage/data",
        checksum=openmoji.checksum(icons),
        semantic_classes=["background", *classes, *STUFF],
        thing_of_semantic=[-1, *range(len(classes)), *[-1] * len(STUFF)],
        keypoints=KEYPOINTS,
        skeleton=SKELETON,
        colours=["#334155", *openmoji.CLASSES.values(), *STUFF.values()],
    )
    members = openmoji.split(icons, seed)
    with store.writing(folder, info) as writer:
        for split, num in zip(SPLITS, (num_train, num_val, num_test), strict=True):
            row = functools.partial(
                _row, seed=seed, split=split, icons=members[split], image_size=image_size, max_objects=max_objects
            )
            for made in ordered_map(row, range(num)):
                writer.add(split, made)


def _row(index: int, *, seed: int, split: str, icons: list[Icon], image_size: int, max_objects: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    sample = scene(rng, icons, split=split, image_size=image_size, max_objects=max_objects)
    sample.image_id = f"{split}_{index:05d}"
    sample.file_name = f"{sample.image_id}.png"
    return store.to_row(sample)


@dataclass
class Pasted:
    """An icon as it lies in a scene.

    Attributes:
        icon: which.
        pixels: [S, S, 4] uint8 RGBA over the whole scene.
        silhouette: [S, S] bool, what would be seen if nothing lay over it.
        keypoints: [P, 2] x, y in pixels of the scene.
        full_area: pixels of the silhouette if the image had no edge.
    """

    icon: Icon
    pixels: np.ndarray
    silhouette: np.ndarray
    keypoints: np.ndarray
    full_area: float


def scene(rng: np.random.Generator, icons: list[Icon], *, split: str, image_size: int, max_objects: int = 6) -> Sample:
    """One scene with all its truth; `image_id` and `file_name` are left empty.

    Args:
        rng: what the scene is drawn from.
        icons: to choose from: first the class, then the icon, so that classes are equally frequent.
        split: whose part of the photographs to cut from.
        image_size: S, side in pixels.
        max_objects: most icons.
    """
    image, ground = _background(rng, split, image_size)
    objects, visible = _objects(rng, icons, image_size, int(rng.integers(1, max_objects + 1)))
    for pasted in objects:
        alpha = pasted.pixels[..., 3:].astype(np.float32) / 255
        image = image * (1 - alpha) + pasted.pixels[..., :3] * alpha
    semantic, ids = ground.copy(), np.zeros_like(ground, dtype=np.int32)
    segments = []
    for number, (pasted, mask) in enumerate(zip(objects, visible, strict=True), start=1):
        semantic[mask] = 1 + pasted.icon.label
        ids[mask] = number
        segments.append((number, 1 + pasted.icon.label))
    for value in sorted({int(v) for v in np.unique(ground)}, key=lambda value: (value == 0, value)):
        rest = (semantic == value) & (ids == 0)
        if rest.any():
            number = len(segments) + 1
            ids[rest] = number
            segments.append((number, value))
    boxes = boxes_of(visible)
    return Sample(
        image_id="",
        file_name="",
        image=np.round(image).astype(np.uint8),
        objects=Objects(
            boxes=boxes,
            labels=np.array([pasted.icon.label for pasted in objects], np.int64),
            area=visible.sum((1, 2)).astype(np.float32),
            iscrowd=np.zeros(len(objects), bool),
            masks=visible,
            keypoints=np.stack([_keypoints(objects, index) for index in range(len(objects))]),
        ),
        semantic=semantic,
        segments=Segments(
            ids=ids,
            segment_ids=np.array([number for number, _ in segments], np.int64),
            labels=np.array([label for _, label in segments], np.int64),
        ),
        captions=captions([pasted.icon.label for pasted in objects], boxes, visible, ground),
    )


def _background(rng: np.random.Generator, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A photograph, mostly with textures in it: [S, S, 3] float32 pixels and [S, S] uint8 semantic values."""
    image = _crop(rng, PHOTOGRAPHS[rng.integers(len(PHOTOGRAPHS))], split, size)
    ground = np.zeros((size, size), np.uint8)
    first_value = 1 + len(openmoji.CLASSES)
    kinds = rng.permutation(len(STUFF))
    rows, columns = np.mgrid[0:size, 0:size] / size
    wave = (
        0.02 * np.sin(2 * np.pi * (columns * rng.uniform(0.5, 2) + rng.uniform())) + rng.uniform(-0.15, 0.15) * columns
    )
    areas = []
    if rng.random() < 0.75:  # the ground
        areas.append(rows > rng.uniform(0.4, 0.8) + wave)
    if rng.random() < 0.35:  # a wall on one side
        edge = rng.uniform(0.2, 0.4)
        areas.append(columns < edge if rng.random() < 0.5 else columns > 1 - edge)
    for kind, area in zip(kinds, areas[::-1], strict=False):  # the ground lies over the wall
        name = list(STUFF)[kind]
        texture = _crop(rng, f"{name}.png", split, size).mean(2, keepdims=True)
        tint = _rgb(TINTS[name]) * rng.uniform(0.85, 1.15, 3)
        image[area] = np.clip(texture / texture.mean() * tint, 0, 255)[area]
        ground[area] = first_value + kind
    return image, ground


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


@functools.cache
def _photograph(name: str) -> np.ndarray:
    from importlib import resources

    from PIL import Image

    with resources.files("skimage").joinpath("data", name).open("rb") as file, Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def _crop(rng: np.random.Generator, name: str, split: str, size: int) -> np.ndarray:
    """A square of the split's part of a photograph, enlarged to the scene: [S, S, 3] float32."""
    from PIL import Image

    photograph = _photograph(name)
    height, width = photograph.shape[:2]
    longer, shorter = PARTS[split]
    across, down = (longer, shorter) if width >= height else (shorter, longer)
    # The same range of sides in every split, so that the splits do not differ in sharpness
    side = int(rng.uniform(0.75, 1.0) * (min(height, width) // 2))
    x = rng.integers(round(across[0] * width), round(across[1] * width) - side + 1)
    y = rng.integers(round(down[0] * height), round(down[1] * height) - side + 1)
    crop = Image.fromarray(photograph[y : y + side, x : x + side])
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC)).astype(np.float32)


def _objects(rng: np.random.Generator, icons: list[Icon], size: int, num: int) -> tuple[list[Pasted], np.ndarray]:
    """Up to `num` icons, later ones over earlier ones, and the [M, S, S] bool of what is seen of each.

    A place that would hide too much of this or of an earlier icon is given up for another one, at last with the icon.
    """
    by_class: dict[int, list[Icon]] = {}
    for icon in icons:
        by_class.setdefault(icon.label, []).append(icon)
    labels = sorted(by_class)
    placed: list[Pasted] = []
    visible = np.zeros((0, size, size), bool)
    largest = (0.72, 0.62, 0.55, 0.5, 0.46, 0.42)[min(num, 6) - 1]
    for _ in range(num):
        members = by_class[labels[rng.integers(len(labels))]]
        icon = members[rng.integers(len(members))]
        for _ in range(ATTEMPTS):
            pasted = _paste(rng, icon, size, largest)
            masks = np.concatenate([visible & ~pasted.silhouette, pasted.silhouette[None]])
            areas = masks.sum((1, 2))
            full = np.array([p.full_area for p in (*placed, pasted)])
            if (areas >= MIN_VISIBLE * full).all() and (areas >= MIN_AREA * size * size).all():
                placed.append(pasted)
                visible = masks
                break
    if not placed:  # every place was given up: once more, which a new draw will not fail for long
        return _objects(rng, icons, size, num)
    return placed, visible


def _paste(rng: np.random.Generator, icon: Icon, size: int, largest: float) -> Pasted:
    """An icon flipped, scaled, turned by up to 25 degrees and moved, lying on an empty scene."""
    from PIL import Image

    side = max(24, round(size * rng.uniform(0.24, largest)))
    drawing = openmoji.rasterise(icon.code, side)
    if rng.random() < 0.5:
        drawing = drawing[:, ::-1]
    angle = np.deg2rad(rng.uniform(-25, 25))
    centre = rng.uniform(0.1 * size, 0.9 * size, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = centre - turn @ np.array([side / 2, side / 2])  # icon to scene: turn @ p + shift
    back = np.linalg.inv(turn)
    coefficients = np.column_stack([back, -back @ shift]).ravel().tolist()
    picture = Image.fromarray(np.ascontiguousarray(drawing))
    pixels = np.asarray(picture.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
    opaque = drawing[..., 3] >= OPAQUE
    return Pasted(
        icon=icon,
        pixels=pixels,
        silhouette=pixels[..., 3] >= OPAQUE,
        keypoints=extremes(opaque) @ turn.T + shift,
        full_area=float(opaque.sum()),
    )


def extremes(silhouette: np.ndarray) -> np.ndarray:
    """The topmost, rightmost, bottommost and leftmost point and the centre of mass of a silhouette.

    Of several pixels in the outermost row or column the middle one counts; a pixel's point is its middle.

    Args:
        silhouette: [H, W] bool, not empty.

    Returns:
        [5, 2] x, y in pixels.

    >>> extremes(np.array([[0, 1, 0], [1, 1, 1]], bool)).tolist()
    [[1.5, 0.5], [2.5, 1.5], [1.5, 1.5], [0.5, 1.5], [1.5, 1.25]]
    """
    rows, columns = np.nonzero(silhouette)

    def middle(chosen: np.ndarray) -> list[float]:
        index = np.flatnonzero(chosen)[(chosen.sum() - 1) // 2]
        return [columns[index] + 0.5, rows[index] + 0.5]

    points = [middle(rows == rows.min()), middle(columns == columns.max())]
    points += [middle(rows == rows.max()), middle(columns == columns.min())]
    return np.array([*points, [columns.mean() + 0.5, rows.mean() + 0.5]])


def _keypoints(objects: list[Pasted], index: int) -> np.ndarray:
    """[P, 3] x, y, visibility of one object: 2 seen, 1 under a later icon, 0 (and no place) outside the image."""
    points = objects[index].keypoints
    size = len(objects[index].silhouette)
    result = np.zeros((len(points), 3), np.float32)
    for row, (x, y) in zip(result, points, strict=True):
        if 0 <= x < size and 0 <= y < size:
            hidden = any(later.silhouette[int(y), int(x)] for later in objects[index + 1 :])
            row[:] = x, y, 1 if hidden else 2
    return result


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def captions(labels: list[int], boxes: np.ndarray, masks: np.ndarray, ground: np.ndarray) -> list[str]:
    """Two sentences: how the two largest objects lie to each other and on what, and what there is in all.

    Args:
        labels: M classes.
        boxes: [M, 4] xyxy.
        masks: [M, S, S] bool, what is seen of each.
        ground: [S, S] semantic values of the background and textures, as if there were no objects.
    """
    names = [name.replace("_", " ") for name in openmoji.CLASSES]
    stuff = list(STUFF)
    first_value = 1 + len(openmoji.CLASSES)

    def under(index: int) -> str:
        value = np.bincount(ground[masks[index]]).argmax()
        return stuff[value - first_value] if value >= first_value else ""

    counts = {label: labels.count(label) for label in sorted(labels)}
    parts = [_counted(number, names[label]) for label, number in counts.items()]
    inventory = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    behind = [name for value, name in enumerate(stuff, first_value) if (ground == value).any()]
    sentences = [f"{inventory} in front of {' and '.join(behind) or 'a photograph'}."]
    order = np.argsort(-masks.sum((1, 2)), kind="stable")
    place = under(order[0])
    if len(order) > 1:
        first, second = order[:2]
        dx, dy = (boxes[first] - boxes[second]).reshape(2, 2).mean(0).tolist()
        relation = ("left of" if dx < 0 else "right of") if abs(dx) >= abs(dy) else ("above" if dy < 0 else "below")
        on = f", on {place}" if place and place == under(second) else ""
        sentences.insert(0, f"{_counted(1, names[labels[first]])} {relation} {_counted(1, names[labels[second]])}{on}.")
    elif place:
        sentences.insert(0, f"{_counted(1, names[labels[0]])} on {place}.")
    return [sentence[0].upper() + sentence[1:] for sentence in sentences]


def _counted(number: int, name: str) -> str:
    if name == "clothing":
        name = "piece of clothing" if number == 1 else "pieces of clothing"
    elif number > 1:
        name += "s"
    article = "an" if name[0] in "aeiou" else "a"
    return f"{article if number == 1 else NUMBERS[number]} {name}"
