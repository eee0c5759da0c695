"""Pictures of a dataset: one for each kind of truth that it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipeline.data.store import Split
from pipeline.structures import DatasetInfo, Sample
from pipeline.visualise import draw


def previews(split: Split, num: int = 8) -> dict[str, np.ndarray]:
    """A grid for each kind of truth, all of the same images.

    Args:
        split: what to show; its images are taken at even steps.
        num: images in a grid; labelled images without objects are shown by class, eight of each at most.

    Returns:
        For the name of each picture (labels, boxes, masks, semantic, panoptic, keypoints, captions,
        regression) its pixels.
    """
    info = split.info
    if info.tasks == ["classification"]:
        return {"labels": by_class(split)}
    indices = np.unique(np.linspace(0, len(split) - 1, min(num, len(split))).astype(int))
    samples = [split.read(int(index), masks=True) for index in indices]
    kinds = {"detection": "boxes", "instance": "masks", "classification": "labels"}
    pictures = {}
    for task in info.tasks:
        name = kinds.get(task, task)
        draw_one, cell = DRAWINGS[name], 288 if name == "captions" else 224
        captions = [caption(sample, info, name) for sample in samples]
        pictures[name] = draw.grid(
            [draw_one(sample, info) for sample in samples],
            columns=4,
            captions=captions if any(captions) else None,
            cell=cell,
        )
    return pictures


def by_class(split: Split, columns: int = 10, rows: int = 12) -> np.ndarray:
    """Images of a split, a row for each class, named at its first image."""
    images, captions = [], []
    labels = np.array(split.column("label"))
    for label in range(min(rows, len(split.info.classes))):
        members = np.flatnonzero(labels == label)
        chosen = [split.read(int(index)).image for index in members[:columns]]
        blank = [np.full_like(chosen[0], 255)] * (columns - len(chosen)) if chosen else []
        if chosen:
            images += [*chosen, *blank]
            captions += [_words(split.info.classes[label]), *[""] * (columns - 1)]
    return draw.grid(images, columns=columns, captions=captions, cell=72)


def boxes(sample: Sample, info: DatasetInfo) -> np.ndarray:
    """The image with its boxes and their classes, twice as large."""
    assert sample.objects is not None
    return draw.boxes(
        sample.image,
        sample.objects.boxes,
        captions=[_words(info.classes[label]) for label in sample.objects.labels],
        colours=_colours(sample, info),
        scale=2,
    )


def masks(sample: Sample, info: DatasetInfo) -> np.ndarray:
    """The image with its instance masks, each object in its own colour."""
    assert sample.objects is not None
    assert sample.objects.masks is not None
    return draw.masks(sample.image, sample.objects.masks, colours=draw.palette(len(sample.objects)))


def semantic(sample: Sample, info: DatasetInfo) -> np.ndarray:
    """The image under its semantic map."""
    assert sample.semantic is not None
    return draw.label_map(sample.image, sample.semantic, colours=info.colours, alpha=0.7)


def panoptic(sample: Sample, info: DatasetInfo) -> np.ndarray:
    """The panoptic map: stuff in its class's colour, each thing in one of its own."""
    assert sample.segments is not None
    ids, labels = sample.segments.segment_ids, sample.segments.labels
    own = iter(draw.palette(len(ids)))
    colours = [next(own) if info.thing_of_semantic[label] >= 0 else info.colours[label] for label in labels]
    places = np.full(int(ids.max()) + 1, 255)
    places[ids] = np.arange(len(ids))
    return draw.label_map(sample.image, places[sample.segments.ids], colours=colours, alpha=0.8)


def keypoints(sample: Sample, info: DatasetInfo) -> np.ndarray:
    """The image with its keypoints and their skeleton, twice as large."""
    assert sample.objects is not None
    assert sample.objects.keypoints is not None
    return draw.keypoints(
        sample.image, sample.objects.keypoints, skeleton=info.skeleton, colours=_colours(sample, info), scale=2
    )


def truth(sample: Sample, info: DatasetInfo) -> np.ndarray:
    """The image with its masks and boxes, as far as it has them, twice as large if it does."""
    if sample.objects is None:
        return (
            draw.label_map(sample.image, sample.semantic, colours=info.colours)
            if sample.semantic is not None
            else sample.image
        )
    image = (
        sample.image
        if sample.objects.masks is None
        else draw.masks(sample.image, sample.objects.masks, colours=_colours(sample, info), alpha=0.35)
    )
    return boxes(replace(sample, image=image), info)


def _plain(sample: Sample, info: DatasetInfo) -> np.ndarray:
    return sample.image


DRAWINGS: dict[str, Callable[[Sample, DatasetInfo], np.ndarray]] = {
    "labels": _plain,
    "boxes": boxes,
    "masks": masks,
    "semantic": semantic,
    "panoptic": panoptic,
    "keypoints": keypoints,
    "captions": _plain,
    "regression": _plain,
}


def caption(sample: Sample, info: DatasetInfo, kind: str) -> str:
    """What stands below an image: its class, its number, its sentences, or which classes a semantic map shows."""
    if kind == "labels" and sample.label is not None:
        return _words(info.classes[sample.label])
    if kind == "regression" and sample.target is not None:
        return f"{sample.target:g}"
    if kind == "captions" and sample.captions:
        return " ".join(sample.captions)
    if kind == "semantic" and sample.semantic is not None:
        return ", ".join(_words(info.semantic_classes[v]) for v in np.unique(sample.semantic) if v != 255)
    return ""


def _colours(sample: Sample, info: DatasetInfo) -> list[str]:
    """The colour of each object's class."""
    assert sample.objects is not None
    of_thing = {thing: info.colours[value] for value, thing in enumerate(info.thing_of_semantic) if thing >= 0}
    if not of_thing:
        of_thing = dict(enumerate(info.colours or draw.palette(len(info.classes))))
    return [of_thing[int(label)] for label in sample.objects.labels]


def _words(name: str) -> str:
    return name.replace("_", " ")
