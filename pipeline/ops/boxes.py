"""Areas and overlaps of boxes, in NumPy with torchvision's arithmetic: float32 boxes are computed with in float32.

Every overlap is of all pairs of two sets, or with `paired=True` of box i with other i alone.
"""

import numpy as np


def area(boxes: np.ndarray) -> np.ndarray:
    """The area of each box.

    Args:
        boxes: [..., 4] xyxy in pixels.

    Returns:
        [...], in square pixels, of the dtype of `boxes`.
    """
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(boxes: np.ndarray, others: np.ndarray, *, paired: bool = False) -> np.ndarray:
    """Intersection over union.

    Args:
        boxes: [N, 4] xyxy in pixels.
        others: [M, 4] xyxy in pixels; [N, 4] if paired.
        paired: whether box i meets other i alone.

    Returns:
        [N, M] (paired: [N]), in 0..1, of the dtype of `boxes`; 0 where both boxes are without area.

    >>> iou(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0], [2.0, 0.0, 4.0, 2.0]]))
    array([[0.33333333, 0.        ]])
    """
    boxes, others = _facing(boxes, others, paired)
    shared, union = _shared_and_union(boxes, others)
    return _ratio(shared, union)


def coverage(boxes: np.ndarray, others: np.ndarray, *, paired: bool = False) -> np.ndarray:
    """The share of each box that lies in another one, which is how COCO overlaps detections with crowds.

    Args and result as of `iou`; 0 for a box without area.
    """
    boxes, others = _facing(boxes, others, paired)
    shared, _ = _shared_and_union(boxes, others)
    return _ratio(shared, np.broadcast_to(area(boxes), shared.shape))


def giou(boxes: np.ndarray, others: np.ndarray, *, paired: bool = False) -> np.ndarray:
    """Generalised IoU (Rezatofighi et al. 2019): IoU less the share of the hull that neither box covers.

    Args and result as of `iou`, in -1..1; the hull is the smallest box around both.
    """
    boxes, others = _facing(boxes, others, paired)
    shared, union = _shared_and_union(boxes, others)
    hull = area(_hull(boxes, others))
    return _ratio(shared, union) - _ratio(hull - union, hull)


def diou(boxes: np.ndarray, others: np.ndarray, *, paired: bool = False) -> np.ndarray:
    """Distance IoU (Zheng et al. 2020, equation 7): IoU less (distance of the centres / diagonal of the hull)^2.

    Args and result as of `iou`, in -1..1.
    """
    boxes, others = _facing(boxes, others, paired)
    hull = _hull(boxes, others)
    diagonal = ((hull[..., 2:] - hull[..., :2]) ** 2).sum(-1)
    apart = boxes[..., :2] + boxes[..., 2:] - others[..., :2] - others[..., 2:]
    return _ratio(*_shared_and_union(boxes, others)) - _ratio((apart**2).sum(-1) / 4, diagonal)


def ciou(boxes: np.ndarray, others: np.ndarray, *, paired: bool = False) -> np.ndarray:
    """Complete IoU (Zheng et al. 2020, equations 8 to 11): DIoU less a term for unequal aspect ratios.

    Args and result as of `iou`, in -1.5..1. The term is v^2 / (1 - IoU + v), where v is 4 / pi^2 times the squared
    difference of the angles arctan(width / height), in 0..1.
    """
    boxes, others = _facing(boxes, others, paired)
    angles = [np.arctan2(b[..., 2] - b[..., 0], b[..., 3] - b[..., 1]) for b in (boxes, others)]
    unequal = (angles[0] - angles[1]) ** 2 * (4 / np.pi**2)
    overlap = _ratio(*_shared_and_union(boxes, others))
    return diou(boxes, others, paired=True) - _ratio(unequal**2, 1 - overlap + unequal)


def _facing(boxes: np.ndarray, others: np.ndarray, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in shapes that broadcast to the pairs."""
    return (boxes, others) if paired else (boxes[:, None, :], others[None, :, :])


def _shared_and_union(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    top_left = np.maximum(boxes[..., :2], others[..., :2])
    bottom_right = np.minimum(boxes[..., 2:], others[..., 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    shared = sides[..., 0] * sides[..., 1]
    return shared, area(boxes) + area(others) - shared


def _hull(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.minimum(boxes[..., :2], others[..., :2]), np.maximum(boxes[..., 2:], others[..., 2:])], -1
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
