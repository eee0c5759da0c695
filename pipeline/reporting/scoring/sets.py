"""Truth and predictions of other tools as the verdicts take them: a split and a table, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.data.formats import plain_info
from pipeline.data.store import Split, encode_png
from pipeline.errors import PipelineError
from pipeline.reporting.verdicts import Predictions
from pipeline.structures import DatasetInfo

FIX = "correct the file of predictions"
DEFAULT_SIZE = (96, 96)


def split(info: DatasetInfo, columns: dict[str, Any], images: Sequence[Path | None], sizes: Sequence[Any]) -> Split:
    """A split of truth.

    Args:
        info: classes and tasks.
        columns: image_id and the truth, one value per image.
        images: the file of each image; None: grey paper stands for it in pictures.
        sizes: height and width of each image; None where nobody says.
    """
    known = [size or DEFAULT_SIZE for size in sizes]
    table = {
        **columns,
        "file_name": columns["image_id"],
        "image": pa.array([_image(path, size) for path, size in zip(images, known, strict=True)], pa.binary()),
        "height": [height for height, _ in known],
        "width": [width for _, width in known],
    }
    return Split(pa.table(table), info)


def predictions(name: str, columns: dict[str, Any], info: dict[str, Any] | None = None) -> Predictions:
    """Predictions in the order of a split."""
    return Predictions(name, FIX, pa.table(columns), info or {})


def info(tasks: list[str], classes: Sequence[str]) -> DatasetInfo:
    """What is known of a set whose classes are named."""
    return plain_info(tasks, classes)


def in_order(name: str, found: dict[str, Any], image_ids: Sequence[str]) -> list[Any]:
    """The prediction of each image.

    Raises:
        PipelineError: an image has none, or a prediction is of another image.
    """
    known = set(image_ids)
    for key in found:
        if key not in known:
            raise PipelineError(f"{name}#{key}: no such image in the truth; fix: score against the same split")
    for key in image_ids:
        if key not in found:
            raise PipelineError(f"{name}: no prediction of image {key!r}; fix: predict every image of the truth")
    return [found[key] for key in image_ids]


def _image(path: Path | None, size: tuple[int, int]) -> bytes:
    if path is None:
        return _paper(*size)
    try:
        return path.read_bytes()
    except OSError as error:
        raise PipelineError(f"{path.name}: not readable ({error.strerror}); fix: correct --images") from None


@cache
def _paper(height: int, width: int) -> bytes:
    return encode_png(np.full((height, width, 3), 238, np.uint8))
