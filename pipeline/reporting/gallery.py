"""A gallery of a run's images with truth and answers, which the report page can filter: `gallery.json` of a report.

It is bounded whatever the number of images: the worst, and some drawn at random.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NUM_RANDOM, NUM_WORST = 8, 16
SIDE, QUALITY = 224, 80


@dataclass(frozen=True)
class Mark:
    """One object or one answer.

    Attributes:
        label: name of its class.
        kind: what it is: found or missed (of a truth), right or a kind of error (of an answer).
        box: x1, y1, x2, y2 in pixels of the original image; None where it speaks of the whole image.
        score: of an answer, 0..1.
    """

    label: str
    kind: str
    box: Sequence[float] | None = None
    score: float | None = None


@dataclass(frozen=True)
class Item:
    """One image.

    Attributes:
        image_id: its name.
        image: [H, W, C] uint8.
        truth, answers: what is there, and what the model said.
        layers: pictures [H, W, 3] uint8 to lay over the image, by name, such as truth and prediction.
    """

    image_id: str
    image: np.ndarray
    truth: Sequence[Mark] = ()
    answers: Sequence[Mark] = ()
    layers: dict[str, np.ndarray] = field(default_factory=dict)


def content(items: Sequence[Item], colours: dict[str, str]) -> dict[str, Any]:
    """What gallery.json holds.

    Args:
        items: in the order in which they are shown.
        colours: one #rrggbb for each class.
    """
    return {"colours": colours, "items": [_item(item) for item in items]}


def _item(item: Item) -> dict[str, Any]:
    from PIL import Image

    height, width = item.image.shape[:2]
    picture = Image.fromarray(item.image.squeeze(-1) if item.image.shape[2] == 1 else item.image)
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return {
        "id": item.image_id,
        "width": width,
        "height": height,
        "picture": _uri(picture.resize(size, Image.Resampling.LANCZOS), "JPEG", quality=QUALITY),
        "truth": [_mark(mark) for mark in item.truth],
        "answers": [_mark(mark) for mark in item.answers],
        "layers": {
            name: _uri(Image.fromarray(layer).resize(size, Image.Resampling.NEAREST).quantize(64), "PNG", optimize=True)
            for name, layer in item.layers.items()
        },
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "label": mark.label,
        "kind": mark.kind,
        "box": None if mark.box is None else [round(float(side), 1) for side in mark.box],
        "score": None if mark.score is None else round(float(mark.score), 3),
    }


def _uri(picture: Any, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
