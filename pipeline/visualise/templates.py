"""What a linear classifier on pixels looks for: its weights as one picture for each class."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.errors import ParamsError
from pipeline.params import Params, Visualisation
from pipeline.training import checkpoint as checkpoints
from pipeline.visualise import draw

DRAWS = True


def templates(
    params: Params, entry: Visualisation, folder: Path, *, columns: int = 6, cell: int = 150
) -> tuple[str, str]:
    """A picture of each row of the weights of a head that was fitted to pixels.

    The score of a class is the inner product of an image with its row, so that the row is the image which, at its
    length, the class likes best: a template. Each weight is that of its pixel in standard deviations over the train
    split, as the head has it: how much the pixel decides, which for one that is hardly ever set is little. Grey is 0,
    brighter pixels speak for the class, darker ones against it.

    Args:
        params: of the project.
        entry: `inputs` names the checkpoint.
        folder: where `templates.png` is written.
        columns: of the sheet.
        cell: side of a template there, in pixels.

    Raises:
        ParamsError: the run is no linear head on pixels.
    """
    name = entry.inputs.partition("/")[2]
    run = params.runs.get(name)
    checkpoint = checkpoints.load(paths.inputs(entry.inputs))
    space = params.features.get(run.inputs.partition("/")[2]) if run else None
    if space is None or space.backbone != "pixels" or checkpoint.arrays.get("weight", np.zeros(0)).ndim != 2:
        raise ParamsError(
            f"{paths.PARAMS} {entry.inputs}: templates are those of a linear head on pixels; "
            "fix: name a run of heads/linear, softmax, logistic or hinge whose features have backbone: pixels"
        )
    pictures = pictures_of(checkpoint.arrays, checkpoint.info.channels)
    captions = [label.replace("_", " ") for label in checkpoint.info.classes]
    sheet = draw.grid(pictures, columns=min(columns, len(pictures)), captions=captions, cell=cell)
    draw.save(folder / "templates.png", sheet)
    return (
        f"Templates of {name}",
        (
            f"The weights of each class as a picture of {space.image_size} x {space.image_size} pixels: what is bright "
            "speaks for the class, what is dark against it, grey does not matter."
        ),
    )


def pictures_of(arrays: dict[str, np.ndarray], channels: int) -> list[np.ndarray]:
    """[H, W, C] uint8 for each row of `weight` [K, H * W * C], grey at 0 and full at the largest weight of the row."""
    weights = arrays["weight"]
    side = math.isqrt(weights.shape[1] // channels)
    largest = np.abs(weights).max(1, keepdims=True)
    shares = weights / np.where(largest > 0, largest, 1)
    return list(np.round(127.5 + 127.5 * shares).astype(np.uint8).reshape(-1, side, side, channels))


METHODS: dict[str, Any] = {"templates": templates}
