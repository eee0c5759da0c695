"""What a source says of one image, before anything is decoded or checked.

Every source outside of the package (a downloaded dataset, a user's own files) yields records; `ingest.py` decodes,
checks and converts them on all cores and writes the store. A record is cheap to make and to send to another process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Encoded = bytes | Path
"""Encoded bytes of an image or map, or the file that holds them; a file is read by the process that decodes it."""


@dataclass
class RawObject:
    """One annotated object in the pixels of the image as it is shown, unchecked.

    Attributes:
        label: class index.
        bbox: x1, y1, x2, y2 in absolute pixels as the source gives them; None: taken from the mask.
        mask: polygons (lists of x, y, x, y, ...), a COCO run-length dict {"size": [H, W], "counts": list, str or
            bytes}, a [H, W] bool array, or None.
        area: in pixels; None: that of the mask or, without one, of the box.
        keypoints: x, y, visibility of each of the P keypoints, or None.
        index: the annotation's number or id in its source, for messages.
    """

    label: int
    bbox: list[float] | None = None
    mask: list[list[float]] | dict[str, Any] | np.ndarray | None = None
    area: float | None = None
    iscrowd: bool = False
    keypoints: list[float] | None = None
    index: int | str = 0


@dataclass
class Record:
    """One image and what its source says of it; absent kinds are None.

    Attributes:
        split: train, val or test.
        image_id: unique in the dataset.
        file_name: the image's name in its source, relative and with forward slashes; named in messages.
        image: encoded bytes or a file.
        size: height and width as the annotations give them, or None where they do not.
        label: class index.
        objects: an empty list where the image is known to show none.
        semantic: label map, encoded or [H, W] uint8; its values are mapped by the `semantic_values` of `ingest`.
        panoptic: COCO's panoptic PNG (id = R + 256 G + 65536 B), with `segments`.
        segments: pairs (id, semantic class) of the panoptic map.
        void: ids of the panoptic map that count as void, such as those of crowds.
        captions: sentences about the image.
        target: a number to be regressed.
        group: what must stay within one split.
        annotation: the file (and line) that the annotations are from, for messages; empty: the image's own name.
    """

    split: str
    image_id: str
    file_name: str
    image: Encoded
    size: tuple[int, int] | None = None
    label: int | None = None
    objects: list[RawObject] | None = None
    semantic: Encoded | np.ndarray | None = None
    panoptic: Encoded | None = None
    segments: list[tuple[int, int]] = field(default_factory=list)
    void: list[int] = field(default_factory=list)
    captions: list[str] | None = None
    target: float | None = None
    group: str | None = None
    annotation: str = ""
