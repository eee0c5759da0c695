"""OpenMoji's icons on white, in twelve classes; the icons of the test split are shown nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.data import openmoji, store
from pipeline.structures import DatasetInfo, Sample

Side = Annotated[int, Field(ge=8, le=4096)]
Margin = Annotated[float, Field(ge=0, le=0.4)]


def prepare(folder: Path, *, seed: int, image_size: Side = 96, margin: Margin = 0.06) -> None:
    """Writes the store.

    Args:
        folder: where to; its name is the dataset's.
        seed: of the split by groups of icons.
        image_size: side in pixels.
        margin: white on each side of the drawing, as a share of the side.
    """
    icons = openmoji.icons()
    info = DatasetInfo(
        name=folder.name,
        tasks=["classification"],
        classes=list(openmoji.CLASSES),
        channels=3,
        licence=openmoji.LICENCE,
        attribution=openmoji.ATTRIBUTION,
        source=openmoji.SOURCE,
        checksum=openmoji.checksum(icons),
        colours=list(openmoji.CLASSES.values()),
    )
    with store.writing(folder, info) as writer:
        for split, members in openmoji.split(icons, seed).items():
            for icon in members:
                sample = Sample(
                    image_id=icon.code,
                    file_name=f"{icon.code}.svg",
                    image=on_white(icon.code, image_size, margin),
                    label=icon.label,
                    group=icon.group,
                )
                writer.add(split, store.to_row(sample))


def on_white(code: str, image_size: int, margin: float) -> np.ndarray:
    """An icon in the middle of a white square, its longer side filling what the margin leaves.

    Returns:
        [image_size, image_size, 3] uint8.
    """
    room = image_size * (1 - 2 * margin)
    coarse = openmoji.rasterise(code, 144)
    size = round(144 * room / max(np.ptp(axis) + 1 for axis in np.nonzero(coarse[..., 3])))
    drawing = openmoji.rasterise(code, size)
    rows, columns = np.nonzero(drawing[..., 3])
    drawing = drawing[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.float32)
    drawing = drawing[:image_size, :image_size]
    height, width = drawing.shape[:2]
    top, left = (image_size - height) // 2, (image_size - width) // 2
    alpha = drawing[..., 3:] / 255
    result = np.full((image_size, image_size, 3), 255, np.uint8)
    result[top : top + height, left : left + width] = np.round(drawing[..., :3] * alpha + 255 * (1 - alpha))
    return result
