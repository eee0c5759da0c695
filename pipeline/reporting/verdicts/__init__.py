"""What is said of a run or a generator, one module per task: figures, protocol, a row per image, pictures.

Each module has `judge(...) -> Verdict`; `stages/evaluate.py` reads the files before and writes them after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.metrics import bootstrap
from pipeline.reporting import gallery
from pipeline.reporting.gallery import Item
from pipeline.structures import DatasetInfo


@dataclass
class Verdict:
    """The outcome of an evaluation.

    Attributes:
        metrics: figures by name, None where undefined.
        per_class: one dict per class, or empty.
        protocol: the rules behind the figures, as pairs of a name and a value.
        per_image: sufficient statistics, one row per image: two runs can be compared from these alone.
        draw: writes pictures into a folder.
        intervals: name, low and high end of the figures that the images leave uncertain.
        tables: further results by name, each a list of rows.
        show: images for the gallery of the report page, with the colour of each class; None for none.
    """

    metrics: dict[str, float | None]
    per_class: list[dict[str, Any]]
    protocol: list[tuple[str, Any]]
    per_image: pa.Table
    draw: Callable[[Path], None]
    intervals: list[tuple[str, float, float]] = field(default_factory=list)
    tables: dict[str, list[list[Any]]] = field(default_factory=dict)
    show: Callable[[], tuple[list[Item], dict[str, str]]] | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json, to six digits: the last ones of float64 differ between machines."""
        rows = [{key: _rounded(value) for key, value in row.items()} for row in self.per_class]
        figures = {name: _rounded(value) for name, value in self.metrics.items()}
        content = {**figures, "protocol": [list(pair) for pair in self.protocol]}
        # a list: DVC takes the numbers of a mapping for metrics
        content["intervals"] = [[name, _rounded(low), _rounded(high)] for name, low, high in self.intervals]
        content |= {name: [[_rounded(value) for value in row] for row in table] for name, table in self.tables.items()}
        return {**content, "per_class": rows} if rows else content

    def add_intervals(
        self, resampled: Callable[[pa.Table, np.ndarray], dict[str, np.ndarray]], groups: Sequence[str | None] | None
    ) -> None:
        """Fills in `intervals` and what the protocol says of them; one image, or one group, says nothing of others.

        Args:
            resampled: of the task's metrics, from `per_image` and weights [R, N] to figures [R].
            groups: group of each image, where the dataset has groups.
        """
        num = self.per_image.num_rows
        grouped = groups is not None and any(group is not None for group in groups)
        if num > 1:
            drawn = bootstrap.weights(num, groups=groups if grouped else None)
            if (drawn != 1).any():
                self.intervals = bootstrap.intervals(resampled(self.per_image, drawn))
        what = f"{bootstrap.NUM_RESAMPLES} resamples of {'whole groups of images' if grouped else 'images'}"
        self.protocol.append(("intervals", f"{bootstrap.LEVEL:.0%}, percentiles of {what}, with replacement"))


@dataclass
class Predictions:
    """A run's raw outputs in the order of the truth's split.

    Attributes:
        file: where they were read, for messages.
        fix: what to do about a fault in them.
        table: of predictions.arrow.
        info: of info.json beside it.
    """

    file: str
    fix: str
    table: pa.Table
    info: dict[str, Any]

    @property
    def image_ids(self) -> list[str]:
        """Of all rows."""
        return self.table.column("image_id").to_pylist()

    def column(self, name: str) -> list[Any]:
        """The values of a column, lists as arrays of numbers."""
        return self.table.column(name).to_pylist()

    def of(self, indices: Sequence[int]) -> Predictions:
        """Those of some images."""
        return replace(self, table=self.table.take(pa.array(indices, pa.int64())))

    def fault(self, image_id: str, key: str, what: str) -> PipelineError:
        """An error about one image."""
        return PipelineError(f"{self.file}#{image_id} {key}: {what}; fix: {self.fix}")


def in_order(folder: Path, image_ids: Sequence[str], fix: str) -> Predictions:
    """A run's outputs in the order of a split's images, without what info.json says of them.

    Args:
        folder: that `predict` wrote.
        image_ids: of the split.
        fix: what to do about a fault in them.

    Raises:
        PipelineError: they cannot be read, or are of other images.
    """
    file = folder / "predictions.arrow"
    try:
        with pa.ipc.open_file(str(file)) as reader:
            table = reader.read_all()
    except (OSError, pa.ArrowInvalid):
        raise PipelineError(f"{file}: not readable; fix: {fix}") from None
    rows = {image_id: row for row, image_id in enumerate(table.column("image_id").to_pylist())}
    if set(rows) != set(image_ids):
        raise PipelineError(f"{file}: of other images than the split's; fix: {fix}")
    return Predictions(str(file), fix, table.take([rows[image_id] for image_id in image_ids]), {})


def digest(texts: Iterable[str]) -> str:
    """Twelve digits that name texts in their order, such as the ids of the images that were judged, or their truth."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def class_colours(info: DatasetInfo) -> list[str]:
    """One #rrggbb for each of `info.classes`, that of the semantic class which shows it where there is one."""
    of_class = {c: colour for c, colour in zip(info.thing_of_semantic, info.colours, strict=False) if c >= 0}
    own = of_class if info.semantic_classes else dict(enumerate(info.colours))
    from pipeline.visualise import draw

    spare = draw.palette(len(info.classes))
    return [own.get(index, spare[index]) for index in range(len(info.classes))]


def some_and_worst(badness: np.ndarray, num_random: int, num_worst: int) -> tuple[list[int], list[int]]:
    """Indices of images to show: some drawn with a fixed seed, and the worst of the others, the worst first.

    Args:
        badness: [N], larger is worse; images at 0 are not bad.
        num_random, num_worst: how many of each, as far as there are so many.
    """
    drawn = np.random.default_rng(0).permutation(len(badness))[:num_random].tolist()
    order = [int(i) for i in np.argsort(-badness, kind="stable") if badness[i] > 0 and i not in set(drawn)]
    return sorted(drawn), order[:num_worst]


def of_gallery(badness: np.ndarray) -> list[int]:
    """Indices of the images of a run's gallery: some drawn at random, then the worst."""
    drawn, worst = some_and_worst(badness, gallery.NUM_RANDOM, gallery.NUM_WORST)
    return drawn + worst


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
