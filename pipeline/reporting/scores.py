"""How a score is named, which way is better, and how it is printed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.metrics import TASKS, lookup

LABELS = {
    "top1": "top-1",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "ECE",
    "map": "mAP",
    "map50": "mAP at IoU .50",
    "map75": "mAP at IoU .75",
    "map_small": "mAP small",
    "map_medium": "mAP medium",
    "map_large": "mAP large",
    "mar1": "mAR, 1 box",
    "mar10": "mAR, 10 boxes",
    "mar100": "mAR, 100 boxes",
    "mar_small": "mAR small",
    "mar_medium": "mAR medium",
    "mar_large": "mAR large",
    "ap": "AP",
    "ap50": "AP at IoU .50",
    "ap75": "AP at IoU .75",
    "iou": "IoU",
    "f1": "F1",
    "miou": "mIoU",
    "miou_background_only": "mIoU, background only",
    "pixel_accuracy": "pixel accuracy",
    "dice": "Dice",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "boundary_iou": "boundary IoU",
    "miou_per_image": "mIoU, mean of images",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "pq_things": "PQ of things",
    "sq_things": "SQ of things",
    "rq_things": "RQ of things",
    "pq_stuff": "PQ of stuff",
    "sq_stuff": "SQ of stuff",
    "rq_stuff": "RQ of stuff",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "rmse_mean": "RMSE of the mean",
    "cider": "CIDEr",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "fid": "FID",
    "fid_noise": "FID of noise",
    "fid_real": "FID of real images",
    "kid": "KID",
    "kid_noise": "KID of noise",
    "kid_real": "KID of real images",
    "memorised": "nearer to a training image than its neighbours",
    "memorised_real": "the same of real images",
}
"""Published names where they differ from the names in metrics.json."""


@dataclass(frozen=True)
class Score:
    """What a reader must know of one score.

    Attributes:
        label: its published name.
        higher_is_better: None where neither way is.
        description: one line, empty where the metrics' tables do not know it.
    """

    label: str
    higher_is_better: bool | None
    description: str

    @property
    def arrow(self) -> str:
        """↑ higher is better, ↓ lower is better, nothing where neither is."""
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]


def score(task: str, name: str) -> Score:
    """A score by the task and its name in metrics.json; an unknown one keeps its name and claims no direction."""
    metric = lookup(task, name) if task in TASKS else None
    label = LABELS.get(name) or re.sub(r"^top(\d+)$", r"top-\1", name).replace("_", " ")
    return Score(label, metric.higher_is_better, metric.description) if metric else Score(label, None, "")


@dataclass(frozen=True)
class Kind:
    """One kind of work, as a section of the report.

    Attributes:
        task: its table of metrics.
        title: its heading.
        lead: one sentence below it.
        main: the score that runs are ranked by.
        others: what stands beside it in the overview.
        foil: the score of an answer that anybody could give without learning, where there is one.
        is_share: whether the main score lies in 0..1, so that a bar can show it; else it is shown against its foil.
    """

    task: str
    title: str
    lead: str
    main: str
    others: tuple[str, ...]
    foil: str | None = None
    is_share: bool = True


KINDS = {
    "heads": Kind(
        "classification",
        "Heads on frozen features",
        "A light classifier on what a pretrained backbone says of each image, or on its bare pixels.",
        "top1",
        ("top5", "balanced_accuracy", "macro_f1"),
    ),
    "classification": Kind(
        "classification",
        "Classification networks",
        "One class for a whole image, by networks trained end to end.",
        "top1",
        ("top5", "balanced_accuracy", "macro_f1"),
    ),
    "detection": Kind(
        "detection",
        "Detection",
        "Boxes around objects, scored with COCO's figures.",
        "map50",
        ("map", "map75", "mar100"),
    ),
    "segmentation": Kind(
        "segmentation",
        "Segmentation",
        "A class for every pixel.",
        "miou",
        ("pixel_accuracy", "dice", "miou_background_only"),
        foil="miou_background_only",
    ),
    "regression": Kind(
        "regression",
        "Regression",
        "A number for each row of a table or each image.",
        "rmse",
        ("mae", "r2", "rmse_mean"),
        foil="rmse_mean",
        is_share=False,
    ),
    "generation": Kind(
        "generative",
        "Generation",
        "New images from noise, judged by how far their features lie from those of real ones.",
        "fid",
        ("kid", "fid_noise", "fid_real"),
        foil="fid_noise",
        is_share=False,
    ),
}


def figures(content: Mapping[str, Any]) -> dict[str, float | None]:
    """The scalars of a metrics.json, None where undefined."""
    return {
        name: value
        for name, value in content.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    }


def kind_of(model: str) -> str:
    """The kind of work of a model's path, such as `detection` of `detection/fcos`."""
    folder = model.split("/")[0]
    return "generation" if folder == "generative" else folder


def kind(name: str) -> Kind:
    """A kind of work by name; one that this table does not know is shown with whatever scores it has."""
    return KINDS.get(name) or Kind(name, name.replace("_", " ").capitalize(), "", "", ())


def printed(value: Any) -> str:
    """A number as a reader wants it: three decimals below ten, fewer above; `n/a` where there is none.

    >>> printed(0.69312), printed(118.26), printed(40_000), printed(None), printed(float("nan"))
    ('0.693', '118.3', '40,000', 'n/a', 'n/a')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "n/a" if value is None else str(value)
    if not math.isfinite(value):
        return "n/a"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size and size < 0.001:
        return f"{value:.1e}"
    return f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign, as exact as scores are printed.

    >>> signed(0.01234), signed(-118.26), signed(0.0)
    ('+0.012', '-118.3', '0')
    """
    text = printed(abs(value))
    return "0" if value == 0 else f"{'+' if value > 0 else '-'}{text}"
