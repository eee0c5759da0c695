"""The verdict on semantic label maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.data.store import Split, decode_image
from pipeline.errors import PipelineError
from pipeline.metrics import segmentation as metrics
from pipeline.params import SegmentationEvaluation
from pipeline.reporting import plots
from pipeline.reporting.gallery import Item, Mark
from pipeline.reporting.verdicts import Predictions, Verdict, of_gallery, some_and_worst
from pipeline.structures import IGNORE
from pipeline.visualise import draw

NUM_RANDOM, NUM_WORST, CELL = 5, 3, 160


def judge(predictions: Predictions, split: Split, evaluation: SegmentationEvaluation) -> Verdict:
    """Judges label maps against the semantic maps of a split.

    Raises:
        PipelineError: a map is unreadable, of another size than its image, or has a value that is no class.
    """
    names = split.info.semantic_classes
    pooled, of_images = np.zeros((len(names), len(names) + 1), np.int64), []
    truths, maps = split.column("semantic"), predictions.column("label_map")
    num_pixels = sum(h * w for h, w in zip(split.column("height"), split.column("width"), strict=True))
    for index, image_id in enumerate(predictions.image_ids):
        target = decode_image(truths[index], 1)[..., 0]
        matrix, of_image = metrics.count(
            label_map=_label_map(predictions, image_id, maps[index], target.shape, len(names)),
            target=target,
            num_classes=len(names),
            compiled=num_pixels >= metrics.NUM_PIXELS_TO_COMPILE,
        )
        pooled += matrix
        of_images.append(of_image)
    counts = metrics.stacked(of_images, len(names))
    per_class = metrics.per_class(counts, names)
    table = metrics.per_image(counts)
    ious = table.column("miou").to_pylist()

    badness = np.array([0 if iou is None else 1 - iou for iou in ious])

    def draw_pictures(folder: Path) -> None:
        colours = split.info.colours
        plots.bars(
            folder / "per_class.png",
            [row["iou"] for row in per_class],
            names,
            label="intersection over union",
            colours=colours,
        )
        left_out = bool(pooled[:, -1].any())
        shown = pooled if left_out else pooled[:, :-1]
        plots.confusion_matrix(folder / "confusion.png", shown, names, columns=[*names, "none"] if left_out else names)
        drawn, worst = some_and_worst(badness, NUM_RANDOM, NUM_WORST)
        images, captions = [], []
        for index in drawn + worst:
            image = split.read(index).image
            shown_maps = (decode_image(png, 1)[..., 0] for png in (truths[index], maps[index]))
            images.append(image)
            images += [draw.label_map(image, m, colours=colours, alpha=0.7) for m in shown_maps]
            captions += [
                "among the worst" if index in worst else "drawn at random",
                "truth",
                f"prediction, mIoU {'n/a' if ious[index] is None else format(ious[index], '.2f')}",
            ]
        draw.save(folder / "predictions.png", draw.grid(images, columns=6, captions=captions, cell=CELL))

    # what the erosions of the authors' code come to
    band = f"bands {metrics.DILATION_RATIO} of the diagonal wide inside of outlines and of the image's edge, by squares"
    return Verdict(
        metrics=metrics.metrics(counts),
        per_class=per_class,
        protocol=[
            ("pooling", "one confusion matrix over all images"),
            ("miou", "mean over the classes in truth or prediction"),
            ("frequency_weighted_iou", "weighted by the pixels of the truth"),
            ("dice", "mean over the same classes"),
            ("boundary_iou", f"mean over the classes with an outline; {band}"),
            ("miou_per_image", "mean over the images with scored pixels, each over its own classes"),
            ("ignored pixels", f"truth {IGNORE} is not counted; a prediction of {IGNORE} elsewhere is wrong"),
            ("miou_background_only", f"predicting {names[0]!r} everywhere"),
        ],
        per_image=pa.table({"image_id": predictions.image_ids, **{n: table.column(n) for n in table.column_names}}),
        draw=draw_pictures,
        show=lambda: (
            items(predictions, split, evaluation, of_gallery(badness)),
            dict(zip(names, split.info.colours, strict=False)),
        ),
    )


def items(
    predictions: Predictions, split: Split, evaluation: SegmentationEvaluation, indices: Sequence[int]
) -> list[Item]:
    """Some images with both maps as layers, for a gallery; a class is missed or invented where one map alone has it."""
    info = split.info
    shown = []
    for index, data in zip(indices, predictions.of(indices).column("label_map"), strict=True):
        sample, answer = split.read(index), decode_image(data, 1)[..., 0]
        assert sample.semantic is not None
        maps = {"prediction": answer, "truth": sample.semantic}
        there, said = (set(np.unique(m[m < len(info.semantic_classes)]).tolist()) for m in (sample.semantic, answer))
        truth = [Mark(info.semantic_classes[v], "found" if v in said else "missed") for v in sorted(there)]
        answers = [Mark(info.semantic_classes[v], "invented") for v in sorted(said - there)]
        layers = {
            name: draw.label_map(sample.image, label_map, colours=info.colours, alpha=1.0)
            for name, label_map in maps.items()
        }
        shown.append(Item(sample.image_id, sample.image, truth, answers, layers))
    return shown


def _label_map(
    predictions: Predictions, image_id: str, data: bytes | None, shape: tuple[int, ...], num_classes: int
) -> np.ndarray:
    """One decoded and checked [H, W] map."""
    try:
        label_map = decode_image(data or b"", 1)[..., 0]
    except (OSError, PipelineError):
        raise predictions.fault(image_id, "label_map", "not a readable PNG") from None
    if label_map.shape != shape:
        raise predictions.fault(image_id, "label_map", f"its size is {label_map.shape}, the image's {shape}")
    unknown = label_map[(label_map >= num_classes) & (label_map != IGNORE)]
    if len(unknown):
        raise predictions.fault(image_id, "label_map", f"no class has the value {unknown[0]}, there are {num_classes}")
    return label_map
