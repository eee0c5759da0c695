"""Detections and objects that a person can place: boxes in one row, which overlap by as much as they are shifted."""

import numpy as np

from pipeline.metrics.detection import Detections
from pipeline.structures import Objects


def row(*starts, width=10):
    """Boxes of `width` x 10 pixels that begin at the given columns."""
    return np.array([[x, 0, x + width, 10] for x in starts], np.float32).reshape(-1, 4)


def truths(boxes, labels, crowd=()):
    """The objects of an image; `crowd` holds the positions of those that are one."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    iscrowd = np.isin(np.arange(len(boxes)), crowd)
    return Objects(boxes=boxes, labels=np.array(labels, np.int64), area=areas, iscrowd=iscrowd)


def found(boxes, labels, scores):
    """The detections of an image."""
    return Detections(boxes=boxes, labels=np.array(labels, np.int64), scores=np.array(scores, np.float32))
