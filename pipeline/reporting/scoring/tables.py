"""Classes and captions of images: CSV tables and COCO's captions, brought to the verdicts of these tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.data.formats import coco
from pipeline.data.formats import csv as tables
from pipeline.data.formats.class_list import read_classes
from pipeline.data.records import Record
from pipeline.errors import PipelineError, did_you_mean
from pipeline.params import ClassificationEvaluation
from pipeline.reporting.scoring import sets
from pipeline.reporting.verdicts import Verdict

TOP_K = 5
SUM_ERROR = 1e-3


def classification(truth: Path, predictions: Path, classes: Path | None, images: Path | None) -> Verdict:
    """Judges a table of classes or of class scores against a table of true classes.

    Args:
        truth: CSV with a column for the file and one for the class.
        predictions: CSV with a column for the file and either one for each class, of its scores, or one for the class.
        classes: names of the classes in their order; None: those of the truth, sorted.
        images: folder that the files are in, for pictures.

    Raises:
        PipelineError: a table is wrong, or an image has no prediction or more than one.
    """
    from pipeline.reporting.verdicts.classification import judge

    names = list(read_classes(classes, classes.name).values()) if classes is not None else None
    source = tables.read(truth.parent, split="test", annotations=truth.name, classes=names)
    labels: dict[str, int] = {}
    for item in source.records:
        if not isinstance(item, Record):
            raise PipelineError(str(item))
        if item.label is None:
            raise PipelineError(f"{truth.name}#{item.file_name} class: missing; fix: write it")
        labels[item.file_name] = item.label
    scores, are_scores, probabilities = _scores(predictions, source.info.classes)
    in_order = sets.in_order(predictions.name, scores, list(labels))
    split = sets.split(
        sets.info(["classification"], source.info.classes),
        {"image_id": list(labels), "label": list(labels.values())},
        [images / name if images is not None else None for name in labels],
        [None] * len(labels),
    )
    columns = {"image_id": list(labels), "scores": pa.array(in_order, pa.list_(pa.float32()))}
    found = sets.predictions(predictions.name, columns, {"probabilities": probabilities})
    return judge(found, split, ClassificationEvaluation(top_k=TOP_K if are_scores else 1))


def _scores(path: Path, classes: Sequence[str]) -> tuple[dict[str, list[float]], bool, bool]:
    """The scores [K] of each image, whether the file has any (a class alone is a score of 1), as probabilities."""
    header, rows = tables.fields_of(path, path.name)
    file = next((name for name in header if name.lower() in tables.NAMES["file"]), None)
    if file is None:
        raise PipelineError(f"{path.name}: no column for the image ({', '.join(header)}); fix: call one `file`")
    label = next((name for name in header if name.lower() in tables.NAMES["class"]), None)
    missing = [name for name in classes if name not in header]
    if label is None and missing:
        raise PipelineError(
            f"{path.name}: neither a column `class` nor one for the class {missing[0]!r}; "
            f"{did_you_mean(missing[0], header)}"
        )
    found: dict[str, list[float]] = {}
    for number, fields in rows:
        row = dict(zip(header, fields, strict=True))
        place, key = f"{path.name}:{number}", row[file]
        if key in found:
            raise PipelineError(f"{place} {file}: {key!r} stands there twice; fix: keep one")
        if not missing:
            found[key] = [_number(f"{place} {name}", row[name]) for name in classes]
        elif label is not None and row[label] in classes:
            found[key] = [float(name == row[label]) for name in classes]
        else:
            raise PipelineError(
                f"{place} {label}: no class {row[str(label)]!r}; {did_you_mean(row[str(label)], classes)}"
            )
    matrix = np.array(list(found.values())).reshape(-1, len(classes))
    sums_to_one = bool((matrix >= 0).all() and (np.abs(matrix.sum(1) - 1) <= SUM_ERROR).all())
    return found, not missing, not missing and sums_to_one


def _number(place: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise PipelineError(f"{place}: not a number ({text!r}); fix: correct the row") from None
    if not math.isfinite(value):
        raise PipelineError(f"{place}: not finite ({text}); fix: correct the row")
    return value


def captions(truth: Path, predictions: Path) -> Verdict:
    """Judges a caption for each image against the references of COCO's captions file.

    Args:
        truth: JSON with `images` and `annotations` of image_id and caption.
        predictions: a JSON list of image_id and caption.

    Raises:
        PipelineError: a file is wrong, or an image has no reference or no caption.
    """
    from pipeline.metrics import captioning
    from pipeline.reporting import plots
    from pipeline.reporting.scoring import results

    source = coco.read(truth.parent, split="test", images=".", captions=truth.name)
    references: dict[str, list[str]] = {}
    for item in source.records:
        if not isinstance(item, Record):
            raise PipelineError(str(item))
        if not item.captions:
            raise PipelineError(f"{truth.name}: no caption of image {item.image_id}; fix: add one or remove the image")
        references[item.image_id] = item.captions
    found = results.read_captions(predictions, results.ids_of(truth))
    candidates = sets.in_order(predictions.name, found, list(references))
    result = captioning.evaluate(candidates=candidates, references=list(references.values()))

    def draw_pictures(folder: Path) -> None:
        shares = [name for name in captioning.METRICS if name != "cider"]
        plots.bars(folder / "scores.png", [result.metrics[name] for name in shares], shares, label="score")

    return Verdict(
        metrics=result.metrics,
        per_class=[],
        protocol=[
            ("tokens", captioning.TOKENIZER),
            ("references", f"{sum(map(len, references.values()))} of {len(references)} images"),
            ("bleu", "COCO's: pooled over the images, brevity by the reference nearest in length"),
            ("rouge_l", f"best precision and best recall of all references, beta {captioning.BETA}"),
            ("cider", "CIDEr-D, rarity of words over the references scored here"),
        ],
        per_image=result.per_image.add_column(0, "image_id", pa.array(list(references))),
        draw=draw_pictures,
    )
