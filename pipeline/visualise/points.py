"""Images as points in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.structures import DatasetInfo
from pipeline.visualise import draw


def scatter(path: Path, positions: np.ndarray, labels: np.ndarray | None, info: DatasetInfo) -> None:
    """Points coloured by class, with a legend.

    Args:
        path: of the PNG.
        positions: [N, 2].
        labels: [N] class indices, or None.
        info: names and colours of the classes.
    """
    import matplotlib

    groups = np.zeros(len(positions), int) if labels is None else labels
    colours = matplotlib.colormaps["tab20"]
    with draw.figure(path, (7.5, 5.5), dpi=110) as figure:
        axes = figure.subplots()
        for label in np.unique(groups):
            at = positions[groups == label]
            # escaped, for matplotlib reads what stands between two dollars as a formula
            name = None if labels is None else info.classes[label].replace("_", " ").replace("$", r"\$")
            axes.scatter(at[:, 0], at[:, 1], s=26, color=colours(int(label) % 20), label=name, linewidths=0)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if labels is not None:
            figure.legend(loc="outside right upper", frameon=False)


def images_at(positions: np.ndarray, images: Sequence[np.ndarray], side: int = 1000, cell: int = 44) -> np.ndarray:
    """The images themselves, each drawn at its position; where two would overlap, the later one is left out.

    Args:
        positions: [N, 2].
        images: N images [H, W, C] uint8.
        side: height and width of the picture, in pixels.
        cell: side of each image in it.

    Returns:
        [side, side, 3] uint8.
    """
    from PIL import Image

    low, high = positions.min(0), positions.max(0)
    places = ((positions - low) / np.maximum(high - low, 1e-12) * (side - cell)).round().astype(int)
    picture = np.full((side, side, 3), 255, np.uint8)
    free = np.ones((side, side), bool)
    for (x, y), image in zip(places, images, strict=True):
        y = side - cell - y
        if free[y : y + cell, x : x + cell].mean() > 0.6:
            small = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).convert("RGB")
            picture[y : y + cell, x : x + cell] = np.minimum(
                picture[y : y + cell, x : x + cell], np.asarray(small.resize((cell, cell)))
            )
            free[y : y + cell, x : x + cell] = False
    return picture
