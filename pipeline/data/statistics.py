"""What a store holds, as numbers: images and objects by class and split, sizes, channels, and where it is from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.data.store import Split, Store


def statistics(store: Store) -> dict[str, Any]:
    """The numbers of all splits; kinds of truth that a store lacks are left out.

    Returns:
        Name, tasks, licence, attribution, source, checksum, classes, channel mean and std (of 0..1), and under
        `splits` for each split: images, image height and width (least and most), images_per_class, objects,
        objects_per_class, objects_per_image (how many images have so many), object_side (quartiles of the root of the
        area, in pixels), groups.
    """
    info = store.info
    return {
        "name": info.name,
        "tasks": info.tasks,
        "licence": info.licence,
        "attribution": info.attribution,
        "source": info.source,
        "checksum": info.checksum,
        "classes": info.classes,
        "semantic_classes": info.semantic_classes,
        "keypoints": info.keypoints,
        "channels": info.channels,
        "mean": info.mean,
        "std": info.std,
        "splits": {name: _of_split(store.split(name), info.classes) for name in info.counts},
    }


def _of_split(split: Split, classes: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"images": len(split)}
    for side in ("height", "width"):
        least, most = pc.min_max(split.table.column(side)).values()
        result[side] = [least.as_py(), most.as_py()]
    columns = split.table.column_names
    if "label" in columns:
        result["images_per_class"] = _per_class(split.column("label"), classes)
    if "group" in columns:
        result["groups"] = len(set(split.column("group")))
    if "objects" in columns:
        objects = split.column("objects")
        result["objects"] = sum(map(len, objects))
        result["objects_per_class"] = _per_class([o["label"] for row in objects for o in row], classes)
        result["objects_per_image"] = {str(n): count for n, count in sorted(Counter(map(len, objects)).items())}
        sides = np.sqrt([o["area"] for row in objects for o in row])
        if len(sides):
            result["object_side"] = [round(float(v), 2) for v in np.quantile(sides, [0, 0.25, 0.5, 0.75, 1])]
    return result


def _per_class(labels: list[int], classes: list[str]) -> dict[str, int]:
    counts = Counter(labels)
    return {name: counts[label] for label, name in enumerate(classes)}
