"""Reads reports/ and params into what the page and the summary show."""

from __future__ import annotations

import csv
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.errors import PipelineError
from pipeline.reporting.scores import KINDS, Kind, figures, kind, kind_of, printed

if TYPE_CHECKING:
    from pipeline.params import Generator, Params, Run

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CAPTIONS = {
    "confusion": "Confusion matrix",
    "calibration": "Calibration: confidence against accuracy",
    "errors": "Kinds of errors: what mending each would gain, and how many there are",
    "pr_curves": "Precision against recall",
    "per_class": "Score of each class",
    "predictions": "Predictions next to the truth",
    "scores": "Distance from real images, against noise",
    "samples": "Samples next to real images",
    "preview": "Images of the training split",
    "labels": "Images and their classes",
    "boxes": "Boxes and their classes",
    "masks": "Instance masks",
    "semantic": "Semantic maps: a class for every pixel",
    "panoptic": "Panoptic maps: stuff and things",
    "keypoints": "Keypoints",
    "captions": "Captions",
    "duplicates": "Equal and nearly equal images, in pairs; those across splits first",
    "corruptions": "One image under each corruption",
    "severities": "Score by corruption and severity",
    "slices": "The metric over each option; the star is the best trial",
    "landscape": "The metric over pairs of options; a cross diverged",
    "history": "The metric from trial to trial",
    "heat": "Images and what speaks for their class",
    "points": "A point for each image, coloured by class",
    "images": "The images at their points",
    "complexity": "What each layer costs, and how far it sees",
}


TABLES = {
    "error_types": ("What each kind of error costs", ("kind", "number", "AP to be gained")),
    "seeds": ("Over several seeds", ("score", "mean", "deviation", "each")),
}
"""Further lists of metrics.json: a title, and names of the columns; values beyond them stand in the last one."""


@dataclass(frozen=True)
class Picture:
    """A PNG of the report.

    Attributes:
        path: relative to the project.
        caption: what it shows.
        width, height: in pixels.
    """

    path: Path
    caption: str
    width: int
    height: int

    def bytes(self) -> bytes:
        """The file's content."""
        return self.path.read_bytes()


@dataclass(frozen=True)
class Trained:
    """A run or a generator as far as reports/ and params.yaml tell.

    Attributes:
        scores: the scalars of metrics.json, None where undefined.
        per_class: rows of metrics.json's per_class.
        protocol: (what, value) pairs that say how the scores were computed.
        training: the columns of training.csv, epoch first; NaN where a cell is empty.
        intervals: low and high end of scores that have them.
        gallery: of gallery.json, or None where the run has none.
        tables: title, names of the columns and rows of what else metrics.json lists.
    """

    name: str
    model: str
    dataset: str
    inputs: str
    entry: Run | Generator
    scores: dict[str, float | None]
    per_class: list[dict[str, Any]]
    protocol: list[tuple[str, str]]
    training: dict[str, list[float]]
    pictures: list[Picture]
    folder: Path
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    gallery: dict[str, Any] | None = None
    tables: list[tuple[str, tuple[str, ...], list[list[Any]]]] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        """The kind of work it does."""
        return kind(kind_of(self.model))

    @property
    def told_split(self) -> str:
        """The split that a run was judged on where that is not the test split, which goes without saying."""
        is_plain = self.kind.task == "generative" or self.entry.judged_on == "test"
        return "" if is_plain else self.entry.judged_on


@dataclass(frozen=True)
class DataReport:
    """What reports/data/<name> holds of a dataset or an augmentation; an augmentation has no health report."""

    name: str
    statistics: dict[str, Any]
    pictures: list[Picture]
    health: dict[str, Any] | None = None

    @property
    def checks(self) -> list[tuple[str, dict[str, Any]]]:
        """Kinds of findings, those that lie across splits first: they make scores look better than they are."""
        found = (self.health or {}).get("checks") or {}
        return sorted(found.items(), key=lambda item: ("across" not in item[0], item[0]))


@dataclass(frozen=True)
class RobustnessReport:
    """What reports/robustness/<name> holds.

    Attributes:
        run: the run that was judged on corrupted images.
        scores: the scalars of metrics.json.
        rows: of its per_corruption.
        protocol: (what, value) pairs.
    """

    name: str
    run: str
    scores: dict[str, float | None]
    rows: list[dict[str, Any]]
    protocol: list[tuple[str, str]]
    pictures: list[Picture]


@dataclass(frozen=True)
class SearchReport:
    """What reports/searches/<name> holds.

    Attributes:
        run: whose options were searched.
        scores: the scalars of metrics.json: the best value and the counts of trials.
        best: options of the best trial, as text, by their dotted keys.
        command: that runs the job with them.
        explained: of a whole grid, how much of the metric's variance each option explains alone.
        protocol: (what, value) pairs.
    """

    name: str
    run: str
    scores: dict[str, float | None]
    best: dict[str, str]
    command: str
    explained: list[tuple[str, float]]
    protocol: list[tuple[str, str]]
    pictures: list[Picture]


@dataclass(frozen=True)
class Visualisation:
    """What reports/visualise/<name> holds."""

    name: str
    title: str
    caption: str
    module: str
    method: str
    inputs: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Duel:
    """One head on pretrained features against the same head on pixels."""

    model: str
    dataset: str
    on_features: Trained
    on_pixels: Trained

    @property
    def gain(self) -> float | None:
        """Top-1 on features minus top-1 on pixels."""
        features, pixels = self.on_features.scores.get("top1"), self.on_pixels.scores.get("top1")
        return None if features is None or pixels is None else features - pixels


@dataclass(frozen=True)
class Contents:
    """Everything a report shows, in the order of params.yaml."""

    kinds: dict[str, list[Trained]]
    duels: list[Duel]
    datasets: list[DataReport]
    augmentations: list[DataReport]
    visualisations: list[Visualisation]
    robustness: list[RobustnessReport] = field(default_factory=list)
    searches: list[SearchReport] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)

    @property
    def is_all_of_test(self) -> bool:
        """Whether every run was judged on the test split."""
        return not any(one.told_split for members in self.kinds.values() for one in members)


def read_contents(params: Params) -> Contents:
    """Reads all that params.yaml names.

    Raises:
        PipelineError: a file that a stage should have written is absent or broken.
    """
    trained = [_read_trained(name, run, paths.run_report(name)) for name, run in params.runs.items()]
    trained += [
        _read_trained(name, generator, paths.generator_report(name)) for name, generator in params.generators.items()
    ]
    kinds: dict[str, list[Trained]] = {name: [] for name in KINDS}
    for one in trained:
        kinds.setdefault(kind_of(one.model), []).append(one)
    return Contents(
        kinds={name: members for name, members in kinds.items() if members},
        duels=_duels(kinds["heads"], params),
        datasets=[_read_data(name) for name in params.datasets],
        augmentations=[_read_data(name) for name in params.augmentations],
        visualisations=[_read_visualisation(name, entry.inputs) for name, entry in params.visualisations.items()],
        robustness=[_read_robustness(name, entry.run) for name, entry in params.robustness.items()],
        searches=[_read_search(name) for name in params.searches],
        strays=_strays(params),
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of the report.

    Raises:
        PipelineError: absent, not JSON, or not an object.
    """
    fix = "fix: dvc repro the stage that writes it"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file; {fix}") from None
    except (OSError, ValueError) as error:
        raise PipelineError(f"{path}: not readable as JSON ({str(error).splitlines()[0]}); {fix}") from None
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: holds a {type(content).__name__}, not an object; {fix}")
    return content


def read_metrics(path: Path) -> dict[str, float | None]:
    """The scalars of a metrics.json, None where undefined."""
    return figures(read_json(path))


def read_training(path: Path) -> dict[str, list[float]]:
    """The columns of a training.csv; NaN where a cell is empty.

    Raises:
        PipelineError: absent, or a cell is no number; names the line.
    """
    try:
        return training_columns(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise PipelineError(f"{path}: no such file; fix: dvc repro the stage that writes it") from None


def training_columns(text: str, where: str) -> dict[str, list[float]]:
    """The same of the text of such a file, which a message calls `where`.

    Raises:
        PipelineError: a cell is no number; names the line.
    """
    rows = list(csv.DictReader(text.splitlines()))
    columns: dict[str, list[float]] = {name: [] for name in (rows[0] if rows else ())}
    for line, row in enumerate(rows, start=2):
        for name, values in columns.items():
            try:
                values.append(float(row[name] or "nan"))
            except ValueError:
                fix = "fix: dvc repro the stage that writes it"
                raise PipelineError(f"{where}:{line} {name}: not a number ({row[name]!r}); {fix}") from None
    return columns


def read_pictures(folder: Path) -> list[Picture]:
    """The PNGs of a folder in order of their names; a folder that is absent has none.

    Raises:
        PipelineError: a file is no PNG.
    """
    pictures = []
    for path in sorted(folder.glob("*.png")):
        with path.open("rb") as file:
            header = file.read(24)
        if header[:8] != PNG_SIGNATURE or len(header) < 24:
            raise PipelineError(f"{path}: not a PNG; fix: dvc repro the stage that writes it")
        width, height = struct.unpack(">II", header[16:24])
        pictures.append(Picture(path, caption_of(path.stem), width, height))
    return pictures


def caption_of(stem: str) -> str:
    """What a picture shows, by its file name.

    >>> caption_of("confusion"), caption_of("preview_boxes"), caption_of("odd_name")
    ('Confusion matrix', 'Images of the training split: boxes', 'Odd name')
    """
    if stem in CAPTIONS:
        return CAPTIONS[stem]
    for known, caption in CAPTIONS.items():
        if stem.startswith(f"{known}_"):
            return f"{caption}: {stem[len(known) + 1 :].replace('_', ' ')}"
    return stem.replace("_", " ").capitalize()


def _read_trained(name: str, entry: Run | Generator, folder: Path) -> Trained:
    metrics = read_json(folder / "metrics.json")
    per_class = metrics.get("per_class") or []
    protocol = metrics.get("protocol") or []
    rows_are_objects = isinstance(per_class, list) and all(isinstance(row, dict) for row in per_class)
    pairs_are_pairs = isinstance(protocol, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in protocol)
    if not rows_are_objects or not pairs_are_pairs:
        raise PipelineError(
            f"{folder / 'metrics.json'}: per_class must be a list of objects and protocol one of pairs; "
            "fix: dvc repro the stage that writes it"
        )
    return Trained(
        name=name,
        model=entry.model,
        dataset=entry.dataset,
        inputs=entry.inputs,
        entry=entry,
        scores=read_metrics(folder / "metrics.json"),
        per_class=per_class,
        protocol=[(str(what), _phrase(value)) for what, value in protocol],
        training=read_training(folder / "training.csv"),
        pictures=read_pictures(folder / "pictures"),
        folder=folder,
        intervals={name: (low, high) for name, low, high in metrics.get("intervals") or []},
        tables=[
            (*TABLES[name], _in_columns(metrics[name], len(TABLES[name][1]))) for name in TABLES if metrics.get(name)
        ],
        gallery=read_json(folder / "gallery.json") if (folder / "gallery.json").is_file() else None,
    )


def _in_columns(rows: list[list[Any]], num_columns: int) -> list[list[Any]]:
    """Rows of one length: what is beyond the columns is listed in the last one."""
    return [
        [*row[: num_columns - 1], ", ".join(map(printed, row[num_columns - 1 :]))] if len(row) > num_columns else row
        for row in rows
    ]


def _phrase(value: Any) -> str:
    """A value of the protocol in words."""
    if value is None:
        return "n/a"
    if isinstance(value, list):
        return ", ".join(_phrase(one) for one in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _read_data(name: str) -> DataReport:
    folder = paths.data_report(name)
    health = folder / "health.json"
    return DataReport(
        name,
        read_json(folder / "statistics.json"),
        read_pictures(folder / "pictures"),
        read_json(health) if health.is_file() else None,
    )


def _read_robustness(name: str, run: str) -> RobustnessReport:
    folder = paths.robustness_report(name)
    metrics = read_json(folder / "metrics.json")
    return RobustnessReport(
        name,
        run,
        read_metrics(folder / "metrics.json"),
        metrics.get("per_corruption") or [],
        [(str(what), _phrase(value)) for what, value in metrics.get("protocol") or []],
        read_pictures(folder / "pictures"),
    )


def _read_search(name: str) -> SearchReport:
    folder = paths.search_report(name)
    metrics, best = read_json(folder / "metrics.json"), read_json(folder / "best.json")
    return SearchReport(
        name,
        str(best["run"]),
        read_metrics(folder / "metrics.json"),
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in best["params"].items()},
        str(best["command"]),
        [(key, share) for key, share in metrics.get("explained") or []],
        [(str(what), _phrase(value)) for what, value in metrics.get("protocol") or []],
        read_pictures(folder / "pictures"),
    )


def _read_visualisation(name: str, inputs: str) -> Visualisation:
    folder = paths.visualisation_report(name)
    content = read_json(folder / "visualisation.json")
    return Visualisation(
        name=name,
        title=str(content.get("title", name)),
        caption=str(content.get("caption", "")),
        module=str(content.get("module", "")),
        method=str(content.get("method", "")),
        inputs=inputs,
        pictures=read_pictures(folder),
    )


def _duels(heads: list[Trained], params: Params) -> list[Duel]:
    """Every head on features beside the same head, with the same parameters and judged on the same split, on pixels."""

    def on_pixels(one: Trained) -> bool:
        features = params.features.get(one.inputs.removeprefix("features/"))
        return features is not None and features.backbone == "pixels"

    return [
        Duel(one.model, one.dataset, one, foil)
        for one in heads
        for foil in heads
        if not on_pixels(one)
        and on_pixels(foil)
        and one.entry.judged_on == foil.entry.judged_on
        and (one.model, one.dataset, one.entry.model_params) == (foil.model, foil.dataset, foil.entry.model_params)
    ]


def _strays(params: Params) -> list[Path]:
    """Folders under reports/ that belong to no entry of params.yaml."""
    owners = {
        paths.REPORTS / "runs": set(params.runs),
        paths.REPORTS / "generators": set(params.generators),
        paths.REPORTS / "data": set(params.datasets) | set(params.augmentations),
        paths.REPORTS / "robustness": set(params.robustness),
        paths.REPORTS / "searches": set(params.searches),
        paths.REPORTS / "visualise": set(params.visualisations),
    }
    return [
        folder
        for parent, names in owners.items()
        if parent.is_dir()
        for folder in sorted(parent.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in names
    ]
