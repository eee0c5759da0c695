"""Label maps in two folders, brought to the verdict on semantic maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.data import images as image_bytes
from pipeline.data.formats import image_files
from pipeline.data.formats.class_list import read_classes
from pipeline.data.store import encode_png
from pipeline.errors import PipelineError
from pipeline.params import SegmentationEvaluation
from pipeline.reporting.scoring import sets
from pipeline.reporting.verdicts import Verdict
from pipeline.structures import IGNORE


def semantic(truth: Path, predictions: Path, classes: Path | None, images: Path | None) -> Verdict:
    """Judges a folder of label maps against another of the same names.

    Args:
        truth: a PNG per image; the index counts in a palette image. A value that is no class is not scored.
        predictions: likewise; every value must be a class, or 255, which is wrong wherever the truth is scored.
        classes: names of the values; None: all values that occur but 255, named by their numbers.
        images: folder of the images, for pictures.

    Raises:
        PipelineError: a map is missing or unreadable, or has a value that is no class.
    """
    from pipeline.reporting.verdicts.segmentation import judge

    files = image_files(truth, truth.parent)
    found = sets.in_order(predictions.name, image_files(predictions, predictions.parent), list(files))
    truths, maps = ([_values(path) for path in paths] for paths in (files.values(), found))
    numbers = read_classes(classes, classes.name) if classes is not None else _occurring([*truths, *maps])
    if not numbers:
        raise PipelineError(f"{truth.name}: no value but {IGNORE} in any map; fix: name the folder of label maps")
    positions = {number: index for index, number in enumerate(sorted(numbers))}
    for path, values in zip(found, maps, strict=True):
        unknown = np.setdiff1d(values, [*positions, IGNORE])
        if len(unknown):
            raise PipelineError(f"{path.name}: no class has the value {unknown[0]}; fix: {sets.FIX}, or --classes")
    info = sets.info(["semantic"], [])
    info.semantic_classes = [numbers[number] for number in sorted(numbers)]
    info.thing_of_semantic = [-1] * len(numbers)
    from pipeline.visualise import draw

    info.colours = draw.palette(len(numbers))
    pictures = image_files(images, images.parent) if images is not None else {}
    encoded = [pa.array([encode_png(_mapped(v, positions)) for v in which], pa.binary()) for which in (truths, maps)]
    split = sets.split(
        info,
        {"image_id": list(files), "semantic": encoded[0]},
        [pictures.get(key) for key in files],
        [values.shape for values in truths],
    )
    table = sets.predictions(predictions.name, {"image_id": list(files), "label_map": encoded[1]})
    return judge(table, split, SegmentationEvaluation())


def _values(path: Path) -> np.ndarray:
    try:
        values = image_bytes.decode_values(path.read_bytes())
    except OSError as error:
        raise PipelineError(f"{path.name}: not readable ({error.strerror}); fix: {sets.FIX}") from None
    except PipelineError as error:
        raise PipelineError(f"{path.name}: {error}; fix: write a map of one whole number for each pixel") from None
    if values.max(initial=0) > IGNORE:
        raise PipelineError(f"{path.name}: a value above {IGNORE} ({values.max()}); fix: write 8-bit maps")
    return values.astype(np.uint8)


def _occurring(maps: list[np.ndarray]) -> dict[int, str]:
    """The values that occur, named by their numbers."""
    counts = sum((np.bincount(values.ravel(), minlength=256) for values in maps), np.zeros(256, np.int64))
    return {int(value): str(value) for value in np.flatnonzero(counts[:IGNORE])}


def _mapped(values: np.ndarray, positions: Mapping[int, int]) -> np.ndarray:
    table = np.full(256, IGNORE, np.uint8)
    for number, index in positions.items():
        table[number] = index
    mapped: np.ndarray = table[values]
    return mapped
