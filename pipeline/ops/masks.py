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


def boxes_of(masks: np.ndarray) -> np.ndarray:
    """The tight boxes of masks; a pixel at column x covers x..x+1.

    Args:
        masks: [M, H, W] bool.

    Returns:
        [M, 4] float32 xyxy; zeros for an empty mask.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes
