"""Areas and overlaps of boxes, in NumPy with torchvision's float32 arithmetic."""

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """The area of each box.

    Args:
        boxes: [..., 4] xyxy in pixels.

    Returns:
        [...], in square pixels, of the dtype of `boxes`.
    """
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of every box with every other.

    Args:
        boxes: [N, 4] xyxy in pixels.
        others: [M, 4] xyxy in pixels.

    Returns:
        [N, M], in 0..1, of the dtype of `boxes`; 0 where both boxes are without area.

    >>> iou(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0], [2.0, 0.0, 4.0, 2.0]]))
    array([[0.33333333, 0.        ]])
    """
    top_left = np.maximum(boxes[:, None, :2], others[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = area(boxes)[:, None] + area(others)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
