"""The images whose outcome a change turned: truth, base and head side by side, the worst first."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.data.store import Split, Store
from pipeline.errors import PipelineError
from pipeline.params import EVALUATIONS
from pipeline.reporting.contents import read_json
from pipeline.reporting.gallery import Item, Mark
from pipeline.reporting.verdicts import in_order
from pipeline.visualise import draw

if TYPE_CHECKING:
    from pipeline.reporting.compare import Arm, RunComparison

NUM_WORSE, NUM_BETTER, CELL = 6, 3, 200
LEAST_SCORE = 0.3
"""Of the boxes that are drawn."""


def sheet(run: RunComparison, scratch: Path) -> bytes | str:
    """The PNG of one comparison.

    Args:
        run: of two sides that were judged on the same images.
        scratch: where data of other commits may be put.

    Returns:
        The picture, or one sentence that says why there is none.
    """
    if run.base is None or run.head is None or run.unequal:
        return "The sides were not judged on the same images by the same rules."
    if run.task not in EVALUATIONS or run.base.table is None or run.head.table is None:
        return "Samples are not paired: no image can be said to have turned."
    change = badness(run.head.table, run.task) - badness(run.base.table, run.task)
    chosen = turned(change)
    if not chosen:
        return "No image's outcome turned."
    data = run.head.revision.fetched(paths.raw(run.head.entry["dataset"]), scratch / "head")
    answers = [
        arm.revision.fetched(paths.predictions(arm.name), scratch / side)
        for side, arm in (("base", run.base), ("head", run.head))
    ]
    if data is None or any(answer is None for answer in answers):
        return f"{len(np.flatnonzero(change))} images turned; their data is in no cache or remote that was asked."
    split = Store(data).split(run.head.entry["prediction"]["split"])
    try:
        sides = [
            _items(arm, run.task, split, folder, chosen)
            for arm, folder in zip((run.base, run.head), answers, strict=True)
            if folder is not None
        ]
    except PipelineError:  # whose message may name a place in `scratch`
        return f"{len(np.flatnonzero(change))} images turned; a side's predictions are broken or of other images."
    images, captions = [], []
    for index, base, head in zip(chosen, *sides, strict=True):
        images += [panel(base, "truth"), panel(base, "answer"), panel(head, "answer")]
        word = "worse" if change[index] > 0 else "better"
        captions += [caption(base, "truth"), f"base: {caption(base, 'answer')}", f"{word}: {caption(head, 'answer')}"]
    buffer = io.BytesIO()
    from PIL import Image

    Image.fromarray(draw.grid(images, columns=3, captions=captions, cell=CELL)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def badness(table: pa.Table, task: str) -> np.ndarray:
    """[N], how wrong each image is by its row: wrong or not, mistakes, the error of a number, what mIoU lacks of 1."""
    if task == "classification":
        return 1.0 - table.column("correct").to_numpy().astype(np.float64)
    if task == "detection":
        return (table.column("fp").to_numpy() + table.column("fn").to_numpy()).astype(np.float64)
    if task == "regression":
        return np.abs(table.column("error").to_numpy())
    return 1 - np.nan_to_num(table.column("miou").to_numpy().astype(np.float64), nan=1.0)


def turned(change: np.ndarray) -> list[int]:
    """Indices of the images that got worse, the most first, then of some that got better.

    >>> turned(np.array([0.0, 1, -2, 3, -1]))
    [3, 1, 2, 4]
    """
    order = np.argsort(-change, kind="stable")
    worse = [int(i) for i in order if change[i] > 0][:NUM_WORSE]
    better = [int(i) for i in order[::-1] if change[i] < 0][:NUM_BETTER]
    return worse + better


def _items(arm: Arm, task: str, split: Split, folder: Path, chosen: list[int]) -> list[Item]:
    predictions = in_order(folder, split.column("image_id"), f"dvc repro predict@{arm.name}")
    predictions.info = read_json(folder / "info.json")
    evaluation = EVALUATIONS[task].model_validate(arm.entry.get("evaluation") or {})
    verdicts = importlib.import_module(f"pipeline.reporting.verdicts.{task}")
    return list(verdicts.items(predictions, split, evaluation, chosen))


def panel(item: Item, side: str) -> np.ndarray:
    """The image with the boxes or the map of one side, [H, W, 3] uint8."""
    image = np.repeat(item.image, 3 // item.image.shape[2], axis=2)
    layer = item.layers.get("truth" if side == "truth" else "prediction")
    if layer is not None:
        return (0.35 * image + 0.65 * layer).astype(np.uint8)
    shown = [mark for mark in _marks(item, side) if mark.box is not None]
    if not shown:
        return image
    colours = draw.palette(len(COLOURS))
    return draw.boxes(
        image,
        np.array([mark.box for mark in shown], np.float32),
        captions=[mark.label + ("" if mark.score is None else f" {mark.score:.2f}") for mark in shown],
        colours=[colours[COLOURS.get(mark.kind, 0)] for mark in shown],
        scale=max(1, CELL // max(image.shape[:2])),
    )


COLOURS = {"right": 0, "found": 0, "missed": 1, "classification": 1, "localisation": 2, "both": 3, "duplicate": 4}


def caption(item: Item, side: str) -> str:
    """What is there, or was said, in a few words."""
    marks = _marks(item, side)
    if side == "truth" or not marks or marks[0].box is None:
        return ", ".join(dict.fromkeys(mark.label + _score(mark) for mark in marks))[:60] or "nothing"
    wrong = sum(mark.kind not in ("right", "ignored") for mark in marks)
    return f"{len(marks) - wrong} right, {wrong} wrong"


def _score(mark: Mark) -> str:
    return "" if mark.score is None else f" {mark.score:.2f}"


def _marks(item: Item, side: str) -> list[Mark]:
    marks = item.truth if side == "truth" else item.answers
    return [mark for mark in marks if mark.box is None or mark.score is None or mark.score >= LEAST_SCORE]
