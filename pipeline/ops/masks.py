"""Instance masks: run-length encoding as COCO's, boxes and areas of masks."""

from typing import Any

import numpy as np


def encode(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask.

    Args:
        mask: [H, W] bool.

    Returns:
        `size` [H, W] and `counts` as bytes.
    """
    from pycocotools import mask as coco_mask

    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def decode(counts: bytes, height: int, width: int) -> np.ndarray:
    """The [H, W] bool mask of a run-length encoding made by `encode`."""
    from pycocotools import mask as coco_mask

    return coco_mask.decode({"size": [height, width], "counts": counts}).astype(bool)


def from_polygons(polygons: list[list[float]], height: int, width: int) -> dict[str, Any]:
    """The run-length encoding of the union of polygons, drawn as COCO's own tools do.

    Args:
        polygons: each x, y, x, y, ... in pixels, of 3 finite points or more.
        height: of the image, in pixels; width alike.
        width: of the image.
    """
    from pycocotools import mask as coco_mask

    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def from_runs(runs: list[int], height: int, width: int) -> dict[str, Any]:
    """The compressed encoding of run lengths that add up to height times width, the first of background."""
    from pycocotools import mask as coco_mask

    return coco_mask.frPyObjects({"size": [height, width], "counts": runs}, height, width)


def runs_of(counts: bytes) -> list[int] | None:
    """The run lengths of a compressed encoding, or None where it is none.

    Five bits to a byte from 48 on, the sixth says that more follow; from the fourth run on the difference to the run
    before the last (pycocotools, maskApi.c, rleFrString).
    """
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        bits = byte - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
        elif shift > 60:
            return None
    return None if shift else runs


def area_of(rle: dict[str, Any]) -> float:
    """Pixels of a run-length encoded mask."""
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(rle))


def box_of(rle: dict[str, Any]) -> list[float]:
    """The tight box, xyxy, of a run-length encoded mask that is not empty."""
    from pycocotools import mask as coco_mask

    x, y, width, height = (float(v) for v in coco_mask.toBbox(rle))
    return [x, y, x + width, y + height]


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The tight boxes of masks; a pixel at column x covers x..x+1.

    Args:
        masks: [M, H, W] bool.

    Returns:
        [M, 4] float32 xyxy; zeros for an empty mask.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows = np.flatnonzero(mask.any(1))
        if len(rows):
            columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
