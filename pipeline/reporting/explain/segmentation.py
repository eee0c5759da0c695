"""A number of label maps, from the counts of each image: pooled, by image, by class."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.reporting.explain.parts import Dialect, Explanation, mean, ratio, row_means, weighted


def explain(table: pa.Table, metric: str) -> Explanation:
    """From the per-image table."""
    parts = {
        name: np.array(table.column(name).to_pylist(), np.float64)
        for name in ("intersections", "unions", "truths")
        if name in table.column_names
    }
    if len(parts) < 3 or not table.num_rows:
        return Explanation([], [], "per_image.parquet holds no counts of classes; fix: dvc repro evaluate anew")
    shared, unions, truths = parts.values()
    pooled, all_unions, all_truths = shared.sum(0), unions.sum(0), truths.sum(0)
    sums = all_unions + pooled
    lines = [
        f"{table.num_rows} images, {int(all_truths.sum())} scored pixels, {int(pooled.sum())} of them right",
        f"{int((all_unions > 0).sum())} of {len(all_unions)} classes occur in truth or prediction and are in the mean",
        f"{int((all_truths > 0).sum())} classes occur in the truth",
    ]
    iou, dice = ratio(pooled, all_unions), ratio(2 * pooled, sums)
    each, each_dice = ratio(shared, unions), ratio(2 * shared, unions + shared)
    values = each if metric != "dice" else each_dice
    whole = iou if metric != "dice" else dice
    if metric not in ("miou", "miou_per_image", "frequency_weighted_iou", "dice", "pixel_accuracy"):
        return Explanation(lines, [])
    if metric == "pixel_accuracy":
        recall = ratio(pooled, all_truths)
        per_image = ratio(shared.sum(1), truths.sum(1))
        return Explanation(
            lines,
            [
                Dialect("pixels of all images pooled", mean(np.array([pooled.sum() / max(all_truths.sum(), 1)]))),
                Dialect("mean over the images of each one's accuracy", mean(per_image)),
                Dialect("mean over the classes of the share of their pixels found", mean(recall)),
            ],
        )
    with_zeros = np.nan_to_num(whole)
    return Explanation(
        lines,
        [
            Dialect("pixels of all images pooled, mean over the classes that occur (VOC, Cityscapes)", mean(whole)),
            Dialect("mean over the images of each one's mean over its classes", mean(row_means(values))),
            Dialect("mean over the classes of their mean over the images they occur in", mean(row_means(values.T))),
            Dialect("pooled, weighted by the pixels of the truth", weighted(whole, all_truths)),
            Dialect("pooled, mean over the classes of the truth alone", mean(whole[all_truths > 0])),
            Dialect("pooled, without class 0", mean(whole[1:])),
            Dialect("pooled, classes that do not occur count 0", mean(with_zeros)),
            Dialect("of each image, classes that do not occur count 1", mean(np.where(np.isnan(values), 1, values))),
        ],
    )
